"""`bench sample`: continue a prompt with the kept weights of a row."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bench.commands.official import check_device
from bench.commands.options import Subparsers, add_records, amount, natural
from bench.commands.reproduce import row_records
from bench.errors import UserError, shortened, unknown
from bench.record import Record, read_record
from bench.record.store import target_of

if TYPE_CHECKING:
    from bench.backbone.decoder import Decoder
    from bench.data import Corpus
    from bench.decoding.sample import Sampled


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser("sample", description=__doc__)
    parser.add_argument(
        "row",
        nargs="+",
        help="row, e.g. mlp_gate, or the file of a record, as in runs/quick/mod/; of a row, the "
        "smallest seed with kept weights is taken",
    )
    parser.add_argument("--prompt", required=True, help="text to continue")
    parser.add_argument(
        "--tokens", type=natural, default=64, help="number of tokens to sample (default: 64)"
    )
    parser.add_argument(
        "--temperature",
        type=amount,
        default=1.0,
        help="divides the logits; 0 takes the most probable token (default: 1)",
    )
    parser.add_argument(
        "--top-k", type=natural, help="sample among so many of the most probable tokens"
    )
    parser.add_argument("--seed", type=natural, default=0, help="seed of the draws (default: 0)")
    parser.add_argument("--domain", help="domain of the text, for routers that read it")
    parser.add_argument("--paths", action="store_true", help="show the paths of each token")
    parser.add_argument("--suite", default="quick", help="suite of the rows (default: quick)")
    add_records(parser)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the suite's)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the continuation of each row."""
    from bench.runner.weights import load_model

    if not arguments.prompt:
        raise UserError("--prompt is empty: give some text to continue.")
    if not arguments.tokens or arguments.top_k == 0:
        named = "--top-k" if arguments.tokens else "--tokens"
        raise UserError(f"{named} is 0; it must be at least 1.")
    # All rows are found before the first one is loaded.
    found = [_kept_record(row, arguments) for row in arguments.row]
    for record, _ in found:
        check_device(arguments.device or record.provenance.config["device"])
    for number, (record, store) in enumerate(found):
        kept = load_model(record, store, arguments.plugin, arguments.device)
        for remark in kept.remarks:
            print(f"note: {remark}")
        if len(found) > 1:
            print(f"{chr(10) * bool(number)}{record.cell.row} seed {record.cell.seed}")
        print(_continued(kept.model.decoder, kept.corpus, arguments))
    return 0


def _continued(decoder: "Decoder", corpus: "Corpus", arguments: argparse.Namespace) -> str:
    """Return prompt and sample as text, or as a table of paths."""
    import torch

    from bench.decoding.sample import sample

    ids = torch.from_numpy(corpus.encode(arguments.prompt).astype("int64"))
    # The table of rotary positions ends here, and no window slides.
    room = decoder.config.max_seq_len
    if len(ids) + arguments.tokens > room:
        raise UserError(
            f"--prompt has {len(ids)} tokens and --tokens is {arguments.tokens}; the model has "
            f"{room} positions. Shorten one of them."
        )
    # A router that reads the domain needs one; all others ignore it.
    domain = arguments.domain
    if domain is not None and domain not in corpus.domains:
        raise unknown("domain", domain, corpus.domains)
    if domain is None and any("tags" in router.needs for router in decoder.routers):
        known = ", ".join(corpus.domains)
        raise UserError(f"This router reads the domain: add --domain with one of {known}.")
    sampled = sample(
        decoder,
        ids,
        arguments.tokens,
        arguments.temperature,
        arguments.top_k,
        arguments.seed,
        0 if domain is None else corpus.domains.index(domain),
        corpus.tokenizer.end_of_document,
    )
    return _table(sampled, corpus) if arguments.paths else corpus.tokenizer.text(sampled.tokens)


def _table(sampled: "Sampled", corpus: "Corpus") -> str:
    from tabulate import tabulate

    shown = [repr(one) for one in corpus.decode(sampled.tokens)]
    # The last token was sampled and never decoded, so it has no paths.
    routes = [*sampled.routes, [""] * len(sampled.sites)]
    lines = [[token, *route] for token, route in zip(shown, routes, strict=False)]
    return tabulate(lines, ["token", *sampled.sites], disable_numparse=True)


def _kept_record(row: str, arguments: argparse.Namespace) -> tuple[Record, Path]:
    """Return the record of a row or file, and the tree with its weights.

    Raises:
        UserError: no such row or record, or none of its seeds has weights.
    """
    from bench.runner.weights import weights_path

    if row.endswith(".json"):
        file = Path(row)
        if not file.is_file():
            raise UserError(f"There is no record {shortened(row)}: give an existing file or a row.")
        record = read_record(file)
        # A record lies in <tree>/records/<digits>/, also if a reference led to it.
        return record, (target_of(file) or file).resolve().parents[2]
    records = row_records(argparse.Namespace(**{**vars(arguments), "row": row}))
    store: Path = arguments.results
    seeds = sorted(records, key=lambda one: (one.cell.seed, one.row.router_seed))
    # Without any weights, loading the first one says so.
    there = [one for one in seeds if weights_path(store, one.key).is_dir()]
    return (there or seeds)[0], store
