"""asyncssh against a node: commands, input, a local and a remote forward, and the agent.

client.py CONFIG KEY AGENT
"""

import asyncio
import sys

import asyncssh


async def echo(reader, writer):
    writer.write(await reader.read())
    writer.write_eof()
    await writer.drain()
    writer.close()


async def through(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"there and back")
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    assert answer == b"there and back", answer


async def main(config, key, agent):
    target = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = target.sockets[0].getsockname()[1]
    async with asyncssh.connect("lab", config=[config], client_keys=[key]) as connection:
        done = await connection.run("echo out; echo err >&2; exit 7")
        assert (done.stdout, done.stderr, done.exit_status) == ("out\n", "err\n", 7), done
        counted = await connection.run("wc -c", input="x" * 1_000_000)
        assert counted.stdout.strip() == "1000000", counted

        local = await connection.forward_local_port("127.0.0.1", 0, "localhost", port)
        await through(local.get_port())
        remote = await connection.forward_remote_port("localhost", 0, "127.0.0.1", port)
        await through(remote.get_port())
        remote.close()
        await remote.wait_closed()

        refused = await connection.run("true", request_pty=False)
        assert refused.exit_status == 0
        try:
            await connection.open_connection("192.0.2.1", 80)
        except asyncssh.ChannelOpenError as error:
            assert error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, error
        else:
            raise AssertionError("a destination that no rule has")

    async with asyncssh.connect_agent(agent) as keys:
        await keys.add_keys([asyncssh.read_private_key(key)])
    async with asyncssh.connect(
        "lab", config=[config], client_keys=[key], agent_path=agent, agent_forwarding=True
    ) as connection:
        listed = await connection.run("ssh-add -L", check=True)
        assert listed.stdout.startswith("ssh-ed25519 "), listed
    print("all of it")


asyncio.run(main(*sys.argv[1:]))
