declare module "diff3" {
  /** What is taken as it is; none of it where the sides conflict. */
  interface Part {
    ok?: string[];
  }

  export default function diff3(ours: string[], base: string[], theirs: string[]): Part[];
}
