import { FitAddon } from "@xterm/addon-fit";
import { Terminal, type ITheme } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import type { Bytes } from "./bytes";

export interface Size {
  cols: number;
  rows: number;
}

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

/** The terminal on the page: fits its element, follows the colour scheme. */
export class Screen {
  readonly #terminal: Terminal;
  #undrawn = 0;
  #waiting: (() => void)[] = [];

  constructor(element: HTMLElement) {
    const light = matchMedia("(prefers-color-scheme: light)");
    const theme = () => (light.matches ? LIGHT : DARK);
    const terminal = new Terminal({
      fontFamily: "ui-monospace, 'SF Mono', Menlo, 'DejaVu Sans Mono', Consolas, monospace",
      fontSize: 14,
      lineHeight: 1.15,
      scrollback: 10_000,
      theme: theme(),
    });
    light.addEventListener("change", () => (terminal.options.theme = theme()));
    const fit = new FitAddon();
    terminal.loadAddon(fit);
    terminal.open(element);
    fit.fit();
    new ResizeObserver(() => fit.fit()).observe(element);
    terminal.onTitleChange((title) => (document.title = title || "alknet"));
    this.#terminal = terminal;
  }

  get size(): Size {
    return { cols: this.#terminal.cols, rows: this.#terminal.rows };
  }

  onResize(listener: (size: Size) => void): void {
    this.#terminal.onResize(listener);
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
}
