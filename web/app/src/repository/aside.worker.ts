// Works on texts of strangers where nothing else waits for it.
import { Marked } from "marked";
import type { Task } from "./aside";
import { colouring } from "./languages";

const marked = new Marked({ gfm: true, async: false });

addEventListener("message", ({ data }: MessageEvent<Task>) => {
  work(data).then(
    (text) => postMessage({ text }),
    (error: unknown) => postMessage({ error: wordsOf(error) }),
  );
});

async function work(task: Task): Promise<string> {
  const make =
    task.kind === "markdown"
      ? (text: string) => marked.parse(text) as string
      : await colouring(task.language);
  // From here on it depends on the text how long it takes.
  postMessage({ begun: true });
  if (make === undefined) throw new Error("there is no such language");
  return make(task.text);
}

function wordsOf(error: unknown): string {
  return error instanceof RangeError ? "it is nested too deeply" : "it makes no sense";
}
