import { complaint, make } from "../dom";
import { field } from "../list";
import type { Context } from "../view";
import type { Author } from "./copy";

/** Where it is kept who wrote the last commit. */
const AUTHOR = "alknet.author";

/** The message of a commit and who writes it. */
export class CommitForm {
  readonly element: HTMLFormElement;
  readonly #message = make("textarea", { id: "commit-message", rows: 3, required: true });
  readonly #name = make("input", { id: "commit-name", required: true, autocomplete: "name" });
  readonly #email = make("input", {
    id: "commit-email",
    type: "email",
    required: true,
    autocomplete: "email",
  });
  readonly #submit = make("button", { className: "main", textContent: "Commit" });

  constructor({ session }: Context, commit: (push: boolean) => Promise<void>) {
    const { name, email } = known() ?? {
      name: session.identity,
      email: `${session.identity.replace(/[^\w.+-]/g, "-")}@${location.hostname}`,
    };
    this.#name.value = name;
    this.#email.value = email;
    const both = make("button", { textContent: "Commit and push", value: "push" });
    const failed = make("div", {});
    this.element = make(
      "form",
      { className: "fields" },
      field("Message", this.#message),
      make(
        "div",
        { className: "pair" },
        field("Author", this.#name),
        field("Mail address", this.#email),
      ),
      make("div", { className: "row" }, this.#submit, both),
      failed,
    );
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      localStorage.setItem(AUTHOR, JSON.stringify(this.author));
      const buttons = [this.#submit, both];
      buttons.forEach((it) => (it.disabled = true));
      failed.replaceChildren();
      commit(event.submitter === both)
        .catch((error: unknown) => failed.replaceChildren(complaint(error)))
        .finally(() => buttons.forEach((it) => (it.disabled = false)));
    });
  }

  get message(): string {
    return `${this.#message.value.trim()}\n`;
  }

  get author(): Author {
    return { name: this.#name.value.trim(), email: this.#email.value.trim() };
  }

  /** The commit is made. */
  taken(): void {
    this.#message.value = "";
  }
}

/** Who committed last. */
function known(): Author | undefined {
  try {
    const value: unknown = JSON.parse(localStorage.getItem(AUTHOR) ?? "null");
    if (typeof value !== "object" || value === null) return undefined;
    const { name, email } = value as Record<string, unknown>;
    return typeof name === "string" && typeof email === "string" ? { name, email } : undefined;
  } catch {
    return undefined;
  }
}
