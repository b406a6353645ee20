// Texts of strangers in which marks pile up: a browser places each by all that are on the same
// letter, and a file of 80 KB, or a name, keeps the page from answering for 15 seconds and more.

/** More marks than this on one letter are carried by several. */
const MAX_MARKS = 64;
/** What carries marks that have no letter, where a line may end; a space that is none carries none. */
const CARRIER = "\u200b◌";

/**
 * What is drawn as one with what stands before it, or is not seen at all: marks, the vowel AM of
 * Thai and Lao, tones of skin, and whatever is joined to a picture.
 */
const JOINED = new RegExp(
  `(?:\\u200d\\p{Extended_Pictographic}|[\\p{M}\\p{Cf}\\p{DI}\\p{Emoji_Modifier}\\u0e33\\u0eb3]){1,${MAX_MARKS}}`,
  "gu",
);

/** A text as it can be shown: in a long run of marks there is now and then something to carry them. */
export function carried(text: string): string {
  let end = -1;
  return text.replace(JOINED, (run: string, at: number) => {
    const goesOn = at === end;
    end = at + run.length;
    return goesOn ? CARRIER + run : run;
  });
}

/** Whether a text cannot be shown as it is. */
export function piles(text: string): boolean {
  return carried(text) !== text;
}
