"""The pre-norm transformer block that the encoders and the decoder are made of."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from clue.nn.attention import Attention
from clue.nn.layout import Layout


class Block(nn.Module):
    """x + attention(norm(x)), then + mlp(norm(x)) (Xiong et al. 2020, arXiv 2002.04745)."""

    def __init__(
        self, width: int, heads: int, dropout: float, *, causal: bool = False, rotary: bool = False
    ) -> None:
        """Make the inner width of the MLP 4 D; dropout acts on both branches."""
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, heads, causal=causal, rotary=rotary)
        self.norm_mlp = nn.LayerNorm(width, bias=False)
        self.widen = nn.Linear(width, 4 * width, bias=False)
        self.narrow = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "T D"], layout: Layout) -> Float[Tensor, "T D"]:
        """Return the next residual stream of each packed position."""
        return self._widened(x + self.dropout(self.attention(self.norm_attention(x), layout)))

    def last(self, x: Float[Tensor, "T D"], layout: Layout) -> Float[Tensor, "N D"]:
        """Return the next residual stream of the last position of each sequence alone."""
        if not layout.length_groups:
            return self(x, layout)[layout.offsets[1:].long() - 1]
        mixed = self.attention.last(self.norm_attention(x), layout)
        return self._widened(x[layout.offsets[1:].long() - 1] + self.dropout(mixed))

    def _widened(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        inner = functional.gelu(self.widen(self.norm_mlp(x)))
        return x + self.dropout(self.narrow(inner))


def initialise(module: nn.Module, layers: int) -> None:
    """Set weights as GPT-2 does: normal(0, .02), branch outputs divided by sqrt(2 x layers)."""
    for name, weight in module.named_parameters():
        if weight.ndim >= 2:
            nn.init.normal_(weight, std=start_std(name, layers))


def start_std(name: str, layers: int) -> float:
    """Return the standard deviation with which the matrix `name` of so many layers starts."""
    return 0.02 / (2 * max(layers, 1)) ** 0.5 if is_branch_end(name) else 0.02


def is_branch_end(name: str) -> bool:
    """Return whether the weight `name` is the last of a residual branch."""
    return name.endswith(("attention.out.weight", "narrow.weight"))
