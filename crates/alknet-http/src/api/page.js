// Calls an operation with what stands in its form, and shows the answer.
const pretty = (text) => {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
};

for (const form of document.querySelectorAll("form")) {
  const answer = form.querySelector("output pre");
  const [start, stop] = form.querySelectorAll("button");
  let running = null;

  stop?.addEventListener("click", () => running?.abort());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    running = new AbortController();
    start.disabled = true;
    answer.textContent = "…";
    try {
      const response = await fetch(form.action, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: form.querySelector("textarea").value,
        signal: running.signal,
      });
      const status = `${response.status} ${response.statusText}`.trim();
      if (stop && response.ok) {
        answer.textContent = `${status}\n\n`;
        await follow(response, answer);
      } else {
        answer.textContent = `${status}\n\n${pretty(await response.text())}`;
      }
    } catch (error) {
      const message = error.name === "AbortError" ? "stopped" : error.message;
      answer.append(`\n${message}`);
    }
    start.disabled = false;
  });
}

// As it comes, and no more than anybody can look at.
async function follow(response, answer) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    answer.textContent = (answer.textContent + value).slice(-100_000);
    answer.scrollTop = answer.scrollHeight;
  }
}

// The address of a kind of failure leads here, and so may that of an operation.
const show = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
};
addEventListener("hashchange", show);
show();
