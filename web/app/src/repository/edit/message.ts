import { complaint, make } from "../dom";
import { field } from "../list";
import type { Context } from "../view";
import type { Author } from "./copy";

/** Where it is kept who wrote the last commit. */
const AUTHOR = "alknet.author";

/** Messages that were begun, by repository: they outlive a look at a file. */
const drafts = new Map<string, string>();

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
  readonly #taken: () => void;
  readonly #submit = make("button", { className: "main", textContent: "Commit" });

  constructor({ session }: Context, repository: string, commit: (push: boolean) => Promise<void>) {
    this.#message.value = drafts.get(repository) ?? "";
    this.#message.addEventListener("input", () => drafts.set(repository, this.#message.value));
    this.#taken = () => {
      drafts.delete(repository);
      this.#message.value = "";
    };
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
      remember(this.author);
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
    this.#taken();
  }
}

function remember(author: Author): void {
  try {
    localStorage.setItem(AUTHOR, JSON.stringify(author));
  } catch {
    // There is no room for it, or it is forbidden: they are asked again.
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
