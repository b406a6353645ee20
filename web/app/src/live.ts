import type { Bytes } from "./bytes";
import type { Size } from "./screen";

/** How a session ended, in words, and what to do then. */
export interface Ending {
  title: string;
  text: string;
  /** What the button says that goes on. */
  label: string;
}

/** A session on the screen, whatever carries it. */
export interface Live {
  /** Never rejects. */
  readonly ended: Promise<Ending>;
  write(data: Bytes): Promise<void>;
  /** There is room for so much on the screen. */
  resize(room: Size): Promise<void>;
  /** The page is left. */
  close(): void;
}
