# SPDX-License-Identifier: Apache-2.0
"""The echo server an asyncio user would write for speed, for asyncio's own loop or, with `--uvloop`, for uvloop.

A BufferedProtocol rather than streams or a plain Protocol: on CPython 3.11 the plain one has asyncio make a 256 KiB
`bytes` for every receive and cost three times as much. One buffer serves all connections, as each answer is copied out
of it at once; transports keep what they could not send, so it may not be lent to them. Both loops turn TCP_NODELAY on
by themselves.
"""

import argparse
import asyncio
import signal
import socket

received = bytearray(64 * 1024)
view = memoryview(received)


class Echo(asyncio.BufferedProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, sizehint):
        return received

    def buffer_updated(self, count):
        self.transport.write(bytes(view[:count]))

    # A slow peer must not make us hold everything.
    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()


async def serve(port):
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    server = await loop.create_server(Echo, "127.0.0.1", port, backlog=socket.SOMAXCONN)
    print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await ended.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    if options.uvloop:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(options.port))
    else:
        asyncio.run(serve(options.port))


main()
