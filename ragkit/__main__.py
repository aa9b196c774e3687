"""The terminal: `python -m ragkit ask "…"`, `index PATH --to DIR`, `chat`, `app`."""

import argparse
import io
import json
import os
import re
import sys
import textwrap
import time
import warnings
from pathlib import Path

from ragkit.retrieval.corpus import DATA
from ragkit.retrieval.text import shown

EPILOG = 'Example: python -m ragkit ask "What does beta control in DPO?"'
HELP = {
    "library": "a folder that `index` made, or Milvus: x.db, http://HOST:19530 (default: the one that ships)",
    "k": "how many passages to retrieve (default: 3)",
    "generator": "smollm2-reader, tiny-rag-lm, a folder, or a model on the Hugging Face Hub that writes",
    "style": "a quoted sentence, the phrase in it that answers, or the model's own words, checked",
    "reranker": "where `Reranker.save` wrote one: passages in the order that people prefer",
    "json": "print one JSON object and nothing else",
    "chat": "a conversation; a follow-up is completed from the question before it",
    "app": "the chat in the browser, where answers and documents can be judged",
    "log": "the folder that keeps what you say (default: $RAGKIT_LOG, or ragkit-preferences in your home)",
    "name": "who judges (default: the name by which you logged in to this machine)",
    "port": "where to serve it on this machine; one near it, where it is taken (default: 8866)",
    "no-browser": "only say the address",
    "path": "JSONL, a BEIR folder, or a folder of Markdown, reStructuredText or text",
    "full": "encode every passage again, not only those that have changed since the last time",
    "to": "a folder, or for Milvus http://HOST:PORT or a name that ends in .db (default: PATH's name and "
    "-library, here); after an interrupt the same command goes on",
    "index": "the kind, as FAISS names it: Flat (exact), HNSW32, SQ8, IVF256,PQ48, … (default: as it "
    "is there, or Flat); what it misses is measured and said",
    "sentences": "store what a reranker reads of each passage, too: twice the time, and some thirteen times "
    "the size of the vectors; then no question waits for a document to be read",
    "encoder": "another encoder: a folder or a name on the Hugging Face Hub",
}
WORKERS = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # line breaks stay


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ragkit", description="Ask a library of passages.", epilog=EPILOG
    )
    commands = parser.add_subparsers(dest="command", required=True)
    reading = argparse.ArgumentParser(add_help=False)
    reading.add_argument("--library", default=DATA / "index", metavar="PLACE", help=HELP["library"])
    reading.add_argument("--k", type=int, default=3, help=HELP["k"])
    reading.add_argument("--generator", metavar="NAME", help=HELP["generator"])
    reading.add_argument("--reranker", type=Path, metavar="PATH", help=HELP["reranker"])
    ask = commands.add_parser("ask", parents=[reading], help="one question, one answer with its sources")
    ask.add_argument("question", type=lambda text: text.encode(errors="replace").decode())  # broken bytes
    styles = ("sentence", "phrase", "free")
    ask.add_argument("--style", choices=styles, default="sentence", help=HELP["style"])
    ask.add_argument("--json", action="store_true", help=HELP["json"])
    commands.add_parser("chat", parents=[reading], help=HELP["chat"])
    app = commands.add_parser("app", parents=[reading], help=HELP["app"])
    app.add_argument("--log", type=Path, metavar="DIR", help=HELP["log"])
    app.add_argument("--name", help=HELP["name"])
    app.add_argument("--port", type=int, default=8866, help=HELP["port"])
    app.add_argument("--no-browser", action="store_true", help=HELP["no-browser"])
    index = commands.add_parser("index", help="make a library of your own passages")
    index.add_argument("path", type=Path, help=HELP["path"])
    index.add_argument("--to", "--out", metavar="DIR|URI", help=HELP["to"])
    index.add_argument("--index", metavar="KIND", help=HELP["index"])
    index.add_argument("--sentences", action="store_true", help=HELP["sentences"])
    index.add_argument("--full", action="store_true", help=HELP["full"])
    index.add_argument("--encoder", default="all-MiniLM-L6-v2", metavar="NAME", help=HELP["encoder"])
    return parser


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"--k {k}: at least one passage is needed to answer from")


def _assistant(arguments):
    from ragkit.assistant import Assistant

    _check_k(arguments.k)
    return Assistant.load(arguments.library, arguments.generator, reranker=arguments.reranker)


def _show(*parts: str, **settings) -> None:
    """`print` without control characters but line breaks: passages must not steer the terminal."""
    plain = lambda match: " " if match[0].isspace() else "\ufffd"  # noqa: E731
    print(*(_CONTROL.sub(plain, shown(part)) for part in parts), **settings)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _complain(trouble: Exception) -> None:
    _show(f"ragkit: {_one_line(str(trouble))}", file=sys.stderr)


def _sources(turn) -> str:
    """The hits under an answer; a star marks those that it cites."""
    lines = []
    for hit in turn.hits:
        star = "*" if hit.rank in turn.answer.citations else " "
        name = _one_line(hit.passage.id)
        title = _one_line(hit.passage.title) or name
        if section := hit.passage.metadata.get("section"):
            title += f" > {_one_line(str(section))}"
        lines.append(f"{star}[{hit.rank}] {title}  ({name}, {hit.score:.2f})")
    return "\n".join(lines)


def _cited(answer) -> str:
    """The answer's citations that its text does not hold already; a document's own [n] is none."""
    from ragkit.generation.citing import marks_of
    from ragkit.generation.generator import citations_in

    held = [int(mark[1]) for mark in marks_of(answer)]
    if answer.marks is None:  # written freely, in forms that other models use, too
        held = citations_in(answer.text, answer.citations)
    return "".join(f" [{number}]" for number in answer.citations if number not in held)


def _ask(arguments) -> None:
    turn = _assistant(arguments).ask(arguments.question, arguments.k, style=arguments.style)
    if arguments.json:
        sources = [
            {"rank": hit.rank, "id": hit.passage.id, "title": hit.passage.title}
            | {"score": round(hit.score, 6), "text": hit.passage.text}
            for hit in turn.hits
        ]
        answer = turn.answer
        found = {
            "query": turn.query,
            "answer": answer.text,
            "abstained": answer.abstained,
            "citations": answer.citations,
            "evidence": [vars(piece) for piece in answer.evidence],
            "sources": sources,
            "timings": {step: round(seconds, 4) for step, seconds in turn.timings.items()},
        }
        # ASCII only: no output encoding is in the way. The one control character that JSON leaves is delete.
        print(json.dumps(found, indent=1).replace("\x7f", "\\u007f"))
        return
    _show(textwrap.fill(turn.answer.text + _cited(turn.answer), 100), _sources(turn), sep="\n\n")


def _index(arguments) -> None:
    import torch

    from ragkit.retrieval.encoder import Encoder
    from ragkit.retrieval.streaming import index_corpus

    started = time.perf_counter()
    # As torchrun and accelerate launch set them, in each of the processes that they start.
    rank, workers, local = (int(os.environ.get(*one)) for one in WORKERS)
    to = arguments.to or f"{arguments.path.resolve().stem}-library"
    device = f"cuda:{local % torch.cuda.device_count()}" if torch.cuda.is_available() else None
    encoder = Encoder(arguments.encoder, device=device, memory=0)  # no text comes again
    total, told = index_corpus(
        arguments.path,
        to,
        encoder,
        index=arguments.index,
        sentences=arguments.sentences,
        full=arguments.full,
        rank=rank,
        workers=workers,
        progress=rank == 0,
    )
    if encoder.truncated:
        told += f"; {encoder.truncated} were longer than the encoder's window and cut there"
    if rank == 0:
        print(f"{total:,} passages in {to} ({time.perf_counter() - started:.0f} s){told}")
        print(f'Ask them: python -m ragkit ask "…" --library {to}')


def _chat(arguments) -> None:
    from ragkit.generation.follow_up import NOTHING_ASKED, asks_nothing, complete_follow_up

    assistant = _assistant(arguments)
    print(f"{len(assistant.library):,} passages. Ask a question; an empty line or Ctrl-D ends the chat.")
    previous = None
    while True:
        try:
            query = input("\n> ").strip()
        except EOFError:
            print()
            return
        if not query:
            return
        if asks_nothing(query):
            print(NOTHING_ASKED)
            continue
        asked = complete_follow_up(query, previous)
        if asked != query:
            _show(f"(read as: {asked})")
        try:
            turn = assistant.ask(asked, arguments.k, on_text=lambda piece: _show(piece, end="", flush=True))
        except ValueError as error:  # a question too long, say: the chat goes on
            _complain(error)
            continue
        _show(_cited(turn.answer), _sources(turn), sep="\n\n")
        previous = asked


def _app(arguments) -> None:
    from ragkit.retrieval.milvus import encoder_of
    from ragkit.widgets.app import own_log, serve

    # What can be seen to be wrong is said here, and not in the browser.
    _check_k(arguments.k)
    if not 1 <= arguments.port <= 65535:
        raise ValueError(f"--port {arguments.port}: a number from 1 to 65535")
    encoder_of(arguments.library)
    if arguments.reranker and not arguments.reranker.expanduser().exists():
        raise FileNotFoundError(f"no reranker in {str(arguments.reranker)!r} (Reranker.save makes one)")
    log = own_log(arguments.log, arguments.name)
    try:
        log.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"what you say can't be kept in {log.folder}: {error.strerror} (--log)") from error

    def started(address: str) -> None:
        kept = f"What {log.annotator} says is kept in {log.folder}. Ctrl-C ends it."
        _show(f"The chat is at {address}", kept, sep="\n", flush=True)

    settings = {name: getattr(arguments, name) for name in ("library", "generator", "reranker", "k", "name")}
    browser = not arguments.no_browser
    serve(**settings, log=log.folder, port=arguments.port, started=started, browser=browser)


def main(arguments: list[str] | None = None) -> int:
    parsed = _parser().parse_args(arguments)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where the terminal has no β, "?" stands for it
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: _complain(message)
            {"ask": _ask, "index": _index, "chat": _chat, "app": _app}[parsed.command](parsed)
    except (OSError, ValueError) as error:
        _complain(error)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
