"""The character RNN in PyTorch, as its users write it. Its state_dict has the names and layouts of our checkpoints."""
import torch
from torch import nn
from torch.nn import functional as F

CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


class CharRnn(nn.Module):
    """`rnn` on 1-of-k characters and `head`; dropout between layers and before the head, none on the recurrence."""

    def __init__(self, cell, vocabulary, hidden, layers, dropout=0.0):
        super().__init__()
        between = dropout if layers > 1 else 0.0   # PyTorch warns of a dropout that has nothing to act on
        if cell == "lstm":
            self.rnn = nn.LSTM(vocabulary, hidden, num_layers=layers, dropout=between)
        elif cell == "gru":
            self.rnn = nn.GRU(vocabulary, hidden, num_layers=layers, dropout=between)
        elif cell in ("rnn_tanh", "rnn_relu"):
            self.rnn = nn.RNN(vocabulary, hidden, num_layers=layers, dropout=between, nonlinearity=cell[4:])
        else:
            raise ValueError(f"cell is {cell}, expected one of {', '.join(CELLS)}")
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, vocabulary)

    def forward(self, ids, state=None):
        """ids [T,B] -> logits [T,B,V] and the state after them; None is the zero state."""
        x = F.one_hot(ids, self.head.out_features).to(self.head.weight.dtype)
        y, state = self.rnn(x, state)
        return self.head(self.drop(y)), state


def detached(state):
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()


def initialize(model, bound, forget_bias):
    """char-rnn's: everything uniform, then an LSTM's forget bias set; only bias_ih's, bias_hh's stays random."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-bound, bound)
        if isinstance(model.rnn, nn.LSTM):
            hidden = model.rnn.hidden_size
            for layer in range(model.rnn.num_layers):
                getattr(model.rnn, f"bias_ih_l{layer}")[hidden:2 * hidden] = forget_bias   # gates i f g o
