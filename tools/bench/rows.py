"""What is measured: the rows of tools/bench/all, and the commands that measure one of them once, ours and PyTorch's."""
from dataclasses import asdict, dataclass

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
SECONDS = 2.5               # that the timed steps of a run should take at the machine's own rate of products
FEWEST, MOST = 3, 200       # steps


@dataclass(frozen=True)
class Row:
    name: str
    kind: str               # step, sample or eval: --what of charrnn-gpu bench
    cell: str = "lstm"
    layers: int = 2
    hidden: int = 512
    vocabulary: int = 100
    batch: int = 100        # of step
    sequence: int = 100
    dropout: float = 0.5
    lanes: int = 1          # texts of sample, streams of eval
    length: int = 0         # characters: of each text, or in all
    repeats: int = 3

    @property
    def unit(self):
        return "ms/step" if self.kind == "step" else "us/char"

    def multiplies(self):
        """A character's, forward, as src/model/step_cost.h counts them."""
        square = GATES[self.cell] * self.hidden ** 2
        return (2 * self.layers - 1) * square + self.hidden * self.vocabulary

    def shape(self):
        """What of it counts for its kind."""
        left_out = {"step": ("lanes", "length", "repeats"), "sample": ("batch", "sequence", "dropout"),
                    "eval": ("batch", "sequence", "dropout")}[self.kind]
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    def steps(self, gflops, quick):
        """Timed steps of a run, fewer where a step is long."""
        step_seconds = 6 * self.batch * self.sequence * self.multiplies() / (gflops * 1e9)
        wanted = int((SECONDS / 5 if quick else SECONDS) / step_seconds)
        return min(max(wanted, 1 if quick else FEWEST), MOST // 5 if quick else MOST)


ROWS = (
    Row("lstm-2x512", "step"),
    Row("lstm-3x512", "step", layers=3),
    Row("lstm-2x128", "step", hidden=128, batch=50, sequence=50, dropout=0.0),
    Row("lstm-1x64", "step", layers=1, hidden=64, batch=32, sequence=64, dropout=0.0),
    Row("gru-1x64", "step", cell="gru", layers=1, hidden=64, batch=32, sequence=64, dropout=0.0),
    Row("lstm-1x256", "step", layers=1, hidden=256, batch=32, sequence=128, dropout=0.0),
    Row("gru-1x256", "step", cell="gru", layers=1, hidden=256, batch=32, sequence=128, dropout=0.0),
    Row("gru-2x512", "step", cell="gru"),
    Row("rnn-2x512", "step", cell="rnn_tanh"),
    Row("sample-3x512", "sample", layers=3, length=2000),
    Row("sample-1000-3x512", "sample", layers=3, lanes=1000, length=10),
    Row("eval-2x512", "eval", lanes=100, length=16200),
    Row("eval-3x512", "eval", layers=3, lanes=100, length=16200),
)


def ours(row, options, size):
    """Arguments of the program, but for --precision."""
    cell, _, nonlinearity = row.cell.partition("_")
    sets = {"model.cell": cell, "model.hidden": row.hidden, "model.layers": row.layers, "model.dropout": row.dropout}
    if nonlinearity:
        sets["model.nonlinearity"] = nonlinearity
    if row.kind == "step":
        sets.update({"train.batch": row.batch, "train.sequence": row.sequence})
        amount = ["--steps", size]
    else:
        amount = ["--length", row.length, "--repeats", size, "--count" if row.kind == "sample" else "--streams",
                  row.lanes]
    command = ["bench", "--config", options.config, "--json", "--what", row.kind, "--threads", options.threads,
               "--vocabulary", row.vocabulary, "--device", options.device, "--implementation", options.implementation,
               *amount]
    for key, value in sets.items():
        command += ["--set", f"{key}={value}"]
    return [str(part) for part in command]


def theirs(row, options, size):
    """PyTorch's script of this kind and its arguments, but for --precision."""
    arguments = ["--threads", options.threads, "--hidden", row.hidden, "--layers", row.layers,
                 "--vocabulary", row.vocabulary]
    if row.kind == "step":
        arguments += ["--cell", row.cell, "--batch", row.batch, "--sequence", row.sequence, "--dropout", row.dropout,
                      "--steps", size, "--device", options.device]
        if getattr(options, "warm_up", None):
            arguments += ["--warm-up", options.warm_up]
    else:
        arguments += ["--length", row.length, "--repeats", size]
        arguments += ["--count", row.lanes] if row.kind == "sample" else ["--cell", row.cell, "--streams", row.lanes]
    return f"pytorch_{row.kind}.py", [str(part) for part in arguments]
