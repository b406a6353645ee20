import { FitAddon } from "@xterm/addon-fit";
import { Terminal, type ITheme } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import type { Bytes } from "./bytes";

export interface Size {
  cols: number;
  rows: number;
}

/** The size of characters, in pixels, and the least where a larger terminal has to fit. */
const FONT = 14;
const SMALLEST_FONT = 6;

/** Bytes given to the terminal and not drawn yet: above HIGH the sender waits until LOW. */
const HIGH = 512 * 1024;
const LOW = 128 * 1024;

const DARK: ITheme = {
  background: "#0f1217",
  foreground: "#e3e7ee",
  cursor: "#5ad1a5",
  cursorAccent: "#0f1217",
  selectionBackground: "#33507a",
};

const LIGHT: ITheme = {
  background: "#fbfbfa",
  foreground: "#1d2420",
  cursor: "#11714d",
  cursorAccent: "#fbfbfa",
  selectionBackground: "#b9d3ee",
  black: "#1d2420",
  red: "#b3261e",
  green: "#11714d",
  yellow: "#7a5b00",
  blue: "#1c5aa8",
  magenta: "#85309c",
  cyan: "#0b6b78",
  white: "#5d6862",
  brightBlack: "#5d6862",
  brightRed: "#c9372c",
  brightGreen: "#1a8a60",
  brightYellow: "#946f00",
  brightBlue: "#2a6fc4",
  brightMagenta: "#9c45b4",
  brightCyan: "#158594",
  brightWhite: "#1d2420",
};

/** The terminal on the page: follows the colour scheme, and knows what room there is for it. */
export class Screen {
  readonly #terminal: Terminal;
  readonly #element: HTMLElement;
  readonly #fit = new FitAddon();
  #heard: (room: Size) => void = () => undefined;
  #room: Size = { cols: 80, rows: 24 };
  #undrawn = 0;
  #waiting: (() => void)[] = [];

  constructor(element: HTMLElement) {
    const light = matchMedia("(prefers-color-scheme: light)");
    const theme = () => (light.matches ? LIGHT : DARK);
    const terminal = new Terminal({
      fontFamily: "ui-monospace, 'SF Mono', Menlo, 'DejaVu Sans Mono', Consolas, monospace",
      fontSize: FONT,
      lineHeight: 1.15,
      scrollback: 10_000,
      theme: theme(),
    });
    light.addEventListener("change", () => (terminal.options.theme = theme()));
    terminal.loadAddon(this.#fit);
    terminal.open(element);
    terminal.onTitleChange((title) => (document.title = title || "alknet"));
    this.#terminal = terminal;
    this.#element = element;
    this.#room = this.#measure(FONT);
    this.show(this.#room);
    new ResizeObserver(() => this.#measureAgain()).observe(element);
  }

  /** The size of the terminal that fits. */
  get room(): Size {
    return this.#room;
  }

  /** Hears of another room, whatever the terminal's size is. */
  onRoom(listener: (room: Size) => void): void {
    this.#heard = listener;
  }

  /** Makes the terminal of this size, and `shrink` the characters so that it fits. */
  show({ cols, rows }: Size, shrink = false): void {
    let font = FONT;
    for (; shrink && font > SMALLEST_FONT; font -= 0.5) {
      const room = this.#measure(font);
      if (room.cols >= cols && room.rows >= rows) break;
    }
    this.#terminal.options.fontSize = font;
    this.#terminal.resize(cols, rows);
    const { cols: across, rows: down } = this.#room;
    this.#element.dataset["fits"] = cols === across && rows === down ? "exactly" : "otherwise";
  }

  /** Takes no input, or takes it again. */
  set readOnly(readOnly: boolean) {
    this.#terminal.options.disableStdin = readOnly;
    this.#terminal.options.cursorInactiveStyle = readOnly ? "none" : "outline";
  }

  /** What is typed or pasted, and what the terminal answers to questions of programs. */
  onInput(listener: (data: Bytes) => void): void {
    const encoder = new TextEncoder();
    this.#terminal.onData((text) => listener(encoder.encode(text)));
    this.#terminal.onBinary((bytes) =>
      listener(Uint8Array.from(bytes, (char) => char.charCodeAt(0))),
    );
  }

  /** Draws output. Where a promise comes back, the sender should wait for it. */
  write(data: Bytes): void | Promise<void> {
    this.#undrawn += data.length;
    this.#terminal.write(data, () => {
      this.#undrawn -= data.length;
      if (this.#undrawn <= LOW) this.#waiting.splice(0).forEach((go) => go());
    });
    if (this.#undrawn > HIGH) return new Promise((go) => this.#waiting.push(go));
  }

  /** As new: whatever mode a program left the terminal in is gone. */
  reset(): void {
    this.#terminal.reset();
  }

  focus(): void {
    this.#terminal.focus();
  }

  #measureAgain(): void {
    const { cols, rows } = this.#room;
    const font = this.#terminal.options.fontSize ?? FONT;
    const room = this.#measure(FONT);
    this.#terminal.options.fontSize = font;
    if (room.cols === cols && room.rows === rows) return;
    this.#room = room;
    this.#heard(room);
  }

  /** What fits with characters of this size. */
  #measure(font: number): Size {
    this.#terminal.options.fontSize = font;
    const { cols, rows } = this.#fit.proposeDimensions() ?? this.#room;
    // Before the element is laid out there is nothing to measure.
    return { cols: cols >= 1 ? cols : 80, rows: rows >= 1 ? rows : 24 };
  }
}
