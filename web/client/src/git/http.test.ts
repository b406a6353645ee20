import { afterEach, describe, expect, test, vi } from "vitest";
import type { Bytes } from "../bytes.js";
import { Deferred } from "../deferred.js";
import { GitRefusedError } from "./exchange.js";
import { GitHttp, type GitResponse } from "./http.js";
import { GitProtocolError } from "./packets.js";
import { FakeGit, onlySays, says, type Serve } from "./testing.js";

const ORIGIN = "https://node.example:8443";
const REFS = `${ORIGIN}/alknet/git/notes/info/refs?service=git-upload-pack`;
const FETCH = `${ORIGIN}/alknet/git/notes/git-upload-pack`;
const PUSH = `${ORIGIN}/alknet/git/notes/git-receive-pack`;

const bytes = (text: string) => new TextEncoder().encode(text) as Bytes;
const line = (text: string) => `${(text.length + 4).toString(16).padStart(4, "0")}${text}`;
const REF = `${"0".repeat(40)} capabilities^{}\0agent=test\n`;

let sessions: FakeGit[] = [];

function http(serve: Serve, multiplexed = true): GitHttp {
  sessions = [];
  return new GitHttp(async () => {
    sessions.push(new FakeGit(serve, multiplexed));
    return sessions.at(-1)!;
  }, ORIGIN);
}

async function textOf({ body }: GitResponse): Promise<string> {
  let text = "";
  for await (const part of body) text += new TextDecoder().decode(part);
  return text;
}

afterEach(() => vi.useRealTimers());

describe("references", () => {
  test("come behind the preamble, however the bytes are cut", async () => {
    const all = line(REF) + line("second\n") + "0000";
    for (const parts of [[all], [...all], [all.slice(0, 7), all.slice(7)]]) {
      const transport = http(says(...parts));
      const answer = await transport.request({ url: REFS });
      expect(answer.statusCode).toBe(200);
      expect(answer.headers["content-type"]).toBe("application/x-git-upload-pack-advertisement");
      expect(await textOf(answer)).toBe(`${line("# service=git-upload-pack\n")}0000${all}`);
      expect(sessions[0]!.lines).toEqual(["git-upload-pack /notes\0host=node.example:8443\0"]);
    }
  });

  test("end with a flush, by which the node knows that this was all", async () => {
    const heard = new Deferred<string>();
    const transport = http(async (_, input, output) => {
      const writer = output.getWriter();
      await writer.write(bytes(`${line(REF)}0000`));
      let text = "";
      for await (const part of input) text += new TextDecoder().decode(part);
      heard.resolve(text);
    }, false);
    await textOf(await transport.request({ url: REFS }));
    expect(await heard.promise).toBe("0000");
    expect(sessions[0]!.over).toBe(true);
  });

  test("of another version are asked for", async () => {
    const transport = http(says("0000"));
    await textOf(await transport.request({ url: REFS, headers: { "Git-Protocol": "version=2" } }));
    expect(sessions[0]!.lines).toEqual([
      "git-upload-pack /notes\0host=node.example:8443\0\0version=2\0",
    ]);
  });
});

describe("what the node refuses", () => {
  test("is told in its words, before there is an answer", async () => {
    const transport = http(says(line("ERR there is no repository notes")), false);
    const asking = transport.request({ url: REFS });
    await expect(asking).rejects.toThrow(new GitRefusedError("there is no repository notes"));
    expect(sessions[0]!.over).toBe(true);
  });

  test("is told in its words behind the references, too, though nobody reads the body", async () => {
    const transport = http(onlySays(`${line(REF)}0000`, line("ERR upload-pack: not our ref")));
    const body = [bytes("x".repeat(1_000_000))];
    const asking = transport.request({ url: FETCH, method: "POST", body });
    await expect(asking).rejects.toThrow(new GitRefusedError("upload-pack: not our ref"));
  });

  test("is no reason to ask twice", async () => {
    const transport = http(says(line("ERR no")));
    await expect(transport.request({ url: REFS })).rejects.toThrow(GitRefusedError);
    await expect(transport.request({ url: REFS })).rejects.toThrow(GitRefusedError);
    expect(sessions.flatMap(({ lines }) => lines)).toHaveLength(2);
  });
});

describe("nonsense", () => {
  test.each([["SSH-2.0-x\r\n"], ["0003"], ["ffff"], ["zzzz"]])("%j is refused", async (text) => {
    const transport = http(says(text));
    await expect(transport.request({ url: REFS })).rejects.toThrow(GitProtocolError);
  });

  test("behind good references is refused, and so is an end among them", async () => {
    for (const text of [`${line(REF)}zzzz`, line(REF), `${line(REF)}00`]) {
      const answer = await http(says(text)).request({ url: REFS });
      await expect(textOf(answer)).rejects.toThrow(GitProtocolError);
    }
  });

  test("references without end are too many", async () => {
    const packet = bytes(line("x".repeat(60_000)));
    const transport = http(async (_, __, output) => {
      const writer = output.getWriter();
      for (;;) await writer.write(packet);
    });
    const answer = await transport.request({ url: REFS });
    const taking = (async () => {
      for await (const _ of answer.body);
    })();
    await expect(taking).rejects.toThrow("more references");
  });

  test.each([
    ["GET", "https://other.example/alknet/git/notes/info/refs?service=git-upload-pack"],
    ["GET", `${ORIGIN}/elsewhere/notes/info/refs?service=git-upload-pack`],
    ["GET", `${ORIGIN}/alknet/git/notes/info/refs?service=git-upload-archive`],
    ["GET", `${ORIGIN}/alknet/git/a%00b/info/refs?service=git-upload-pack`],
    ["GET", `${ORIGIN}/alknet/git/notes/HEAD?service=git-upload-pack`],
    ["POST", `${ORIGIN}/alknet/git/notes/git-upload-archive`],
  ])("%s %s is asked of nobody", async (method, url) => {
    const transport = http(says("0000"));
    await expect(transport.request({ method, url })).rejects.toThrow(TypeError);
    expect(sessions).toHaveLength(0);
  });
});

describe("the connection", () => {
  test("that was kept and is gone is replaced", async () => {
    const transport = http(says(`${line(REF)}0000`));
    await textOf(await transport.request({ url: REFS }));
    const [first] = sessions;
    first!.over = true;
    await textOf(await transport.request({ url: REFS }));
    expect(sessions).toHaveLength(2);
    first!.close();
    await textOf(await transport.request({ url: REFS }));
    expect(sessions).toHaveLength(2);
  });

  test("an abort ends the exchange, and the node sees that it was no end", async () => {
    const ended = new Deferred<string>();
    const transport = http(async (_, input, output) => {
      await output.getWriter().write(bytes(`${line(REF)}0000`));
      const taking = (async () => {
        for await (const _ of input);
      })();
      taking.then(
        () => ended.resolve("end"),
        () => ended.resolve("reset"),
      );
    });
    const leaving = new AbortController();
    const { signal } = leaving;
    const body = (async function* () {
      yield bytes("0000");
      leaving.abort(new Error("enough"));
      await new Promise(() => undefined);
    })();
    const asking = transport.request({ url: PUSH, method: "POST", body, signal });
    await expect(asking).rejects.toThrow("enough");
    expect(await ended.promise).toBe("reset");
  });

  test("closing the transport ends what is under way and all that would follow", async () => {
    const transport = http(async (_, __, output) => {
      await output.getWriter().write(bytes(`${line(REF)}00`));
    });
    const answer = await transport.request({ url: REFS });
    transport.close();
    await expect(textOf(answer)).rejects.toThrow("closed");
    expect(sessions[0]!.over).toBe(true);
    await expect(transport.request({ url: REFS })).rejects.toThrow("closed");
    expect(sessions).toHaveLength(1);
  });

  test("a node that falls silent is waited for no longer than two minutes", async () => {
    vi.useFakeTimers();
    const transport = http(() => new Promise(() => undefined));
    const asking = transport.request({ url: REFS }).catch((error: Error) => error);
    await vi.advanceTimersByTimeAsync(121_000);
    expect((await asking) as Error).toMatchObject({ cause: { message: /nothing for two/ } });
  });

  test("a body that moves slowly is no silence", async () => {
    vi.useFakeTimers();
    const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
    const transport = http(async (_, input, output) => {
      const writer = output.getWriter();
      await writer.write(bytes(`${line(REF)}0000`));
      let size = 0;
      for await (const part of input) {
        size += part.length;
        await pause(50_000);
      }
      await writer.write(bytes(line(`took ${size}`)));
      await writer.close();
    });
    const body = [new Uint8Array(400_000)];
    const asking = transport.request({ url: PUSH, method: "POST", body });
    await vi.advanceTimersByTimeAsync(500_000);
    expect(await textOf(await asking)).toBe(line("took 400000"));
  });

  test("an answer is read as it is taken, and left when nobody takes it", async () => {
    let sent = 0;
    const over = new Deferred<void>();
    const transport = http(async (_, __, output) => {
      const writer = output.getWriter();
      await writer.write(bytes(`${line(REF)}0000`));
      try {
        for (;;) {
          await writer.write(bytes(line("x".repeat(60_000))));
          sent++;
        }
      } catch {
        over.resolve();
      }
    });
    const body = [bytes("0000")];
    const { body: answer } = await transport.request({ url: FETCH, method: "POST", body });
    await answer.next();
    expect(sent).toBeLessThan(8);
    await answer.return!();
    await over.promise;
  });
});
