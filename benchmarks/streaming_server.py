"""A provider in a process of its own: `python -m benchmarks.streaming_server API CHUNKS PAUSE`.

Answers every request with a text of so many chunks, all at once or, with PAUSE in seconds, one after another.
"""

import asyncio
import sys

from atto.testing.model_dialect import Dialect, Said
from benchmarks.streaming_apis import APIS

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_END = b"0\r\n\r\n"


def events(dialect: Dialect, chunks: int) -> list[bytes]:
    said = dialect.answer(Said(text=[f"word{number % 10} " for number in range(chunks)]))
    return [b"%x\r\n%b\r\n" % (len(event), event) for event in said]


async def serve(api: str, chunks: int, pause: float) -> None:
    said = events(APIS[api].dialect(), chunks)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            await reader.readexactly(int(fields.get(b"content-length", 0)))
            if pause < 0:
                writer.write(b"".join([_HEAD, *said, _END]))
                continue
            writer.write(_HEAD)
            for event in said:
                writer.write(event)
                await asyncio.sleep(pause)
            writer.write(_END)

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
