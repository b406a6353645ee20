// The page of the operations in a real browser against a real node.
import assert from "node:assert/strict";
import { test } from "node:test";
import { newPage, screenshot, startBrowser } from "./browser.mjs";
import { startNode } from "./node.mjs";

const options = { timeout: 120_000 };

test("a signed-in browser reads what it may call, and calls it", options, async (t) => {
  const node = await startNode(t);
  const browser = await startBrowser(t, node);
  const page = await newPage(t, browser);
  const elsewhere = [];
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== node.origin) elsewhere.push(request.url());
  });
  await page.goto(node.signIn);
  await page.goto(`${node.origin}/alknet/api/#services/schema`);
  const operation = page.locator("[id='services/schema']");
  await operation.locator("textarea").fill('{"name": "services/list"}');
  await operation.getByRole("button", { name: "Call" }).click();
  await operation.locator("output", { hasText: '"name": "services/list"' }).waitFor();
  assert.match(await operation.locator("output").innerText(), /^200/);
  await screenshot(page, "api");

  await operation.locator("textarea").fill("{");
  await operation.getByRole("button", { name: "Call" }).click();
  await operation.locator("output", { hasText: "INVALID_INPUT" }).waitFor();

  // Like everything that is not there, for whoever is not signed in.
  const stranger = await newPage(t, browser);
  const refused = await stranger.goto(`${node.origin}/alknet/api/`);
  assert.equal(refused.status(), 404);
  assert.deepEqual(elsewhere, []);
});
