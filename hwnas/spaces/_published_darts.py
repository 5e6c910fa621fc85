"""Networks of the genotypes that DARTS' public code and that of its followers list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwnas.spaces import Published, Stated
from hwnas.spaces._genotype import Genotype

GENOTYPES: Mapping[str, str] = {
    "DARTS_V1": """Genotype(
        normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1),
                ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)],
        normal_concat=[2, 3, 4, 5],
        reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0),
                ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)],
        reduce_concat=[2, 3, 4, 5])""",
    "DARTS_V2": """Genotype(
        normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),
                ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)],
        normal_concat=[2, 3, 4, 5],
        reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1),
                ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)],
        reduce_concat=[2, 3, 4, 5])""",
    "PC_DARTS_cifar": """Genotype(
        normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), ('dil_conv_3x3', 1),
                ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), ('dil_conv_3x3', 1)],
        normal_concat=range(2, 6),
        reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_5x5', 2),
                ('sep_conv_3x3', 0), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)],
        reduce_concat=range(2, 6))""",
    "PC_DARTS_image": """Genotype(
        normal=[('skip_connect', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 0), ('skip_connect', 1),
                ('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('dil_conv_5x5', 4)],
        normal_concat=range(2, 6),
        reduce=[('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_5x5', 2), ('max_pool_3x3', 1),
                ('sep_conv_3x3', 2), ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 3)],
        reduce_concat=range(2, 6))""",
    "PDARTS": """Genotype(
        normal=[('skip_connect', 0), ('dil_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1),
                ('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 0), ('dil_conv_5x5', 4)],
        normal_concat=range(2, 6),
        reduce=[('avg_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('dil_conv_5x5', 2),
                ('max_pool_3x3', 0), ('dil_conv_3x3', 1), ('dil_conv_3x3', 1), ('dil_conv_5x5', 3)],
        reduce_concat=range(2, 6))""",
    "NASNet": """Genotype(
        normal=[('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 0), ('sep_conv_3x3', 0),
                ('avg_pool_3x3', 1), ('skip_connect', 0), ('avg_pool_3x3', 0), ('avg_pool_3x3', 0),
                ('sep_conv_3x3', 1), ('skip_connect', 1)],
        normal_concat=[2, 3, 4, 5, 6],
        reduce=[('sep_conv_5x5', 1), ('sep_conv_7x7', 0), ('max_pool_3x3', 1), ('sep_conv_7x7', 0),
                ('avg_pool_3x3', 1), ('sep_conv_5x5', 0), ('skip_connect', 3), ('avg_pool_3x3', 2),
                ('sep_conv_3x3', 2), ('max_pool_3x3', 1)],
        reduce_concat=[4, 5, 6])""",
    "AmoebaNet": """Genotype(
        normal=[('avg_pool_3x3', 0), ('max_pool_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 2),
                ('sep_conv_3x3', 0), ('avg_pool_3x3', 3), ('sep_conv_3x3', 1), ('skip_connect', 1),
                ('skip_connect', 0), ('avg_pool_3x3', 1)],
        normal_concat=[4, 5, 6],
        reduce=[('avg_pool_3x3', 0), ('sep_conv_3x3', 1), ('max_pool_3x3', 0), ('sep_conv_7x7', 2),
                ('sep_conv_7x7', 0), ('avg_pool_3x3', 1), ('max_pool_3x3', 0), ('max_pool_3x3', 1),
                ('conv_7x1_1x7', 0), ('sep_conv_3x3', 5)],
        reduce_concat=[3, 4, 6])""",
}


_DARTS = "Liu et al. 2019, table {}; quark0/darts, README.md and cnn/genotypes.py"
_DARTS_RETRAINED = (
    "Liu et al. 2019, table 1, networks of others trained with DARTS' code (figure unverified); "
    "quark0/darts, cnn/genotypes.py"
)
_PC_DARTS = "Xu et al. 2020; yuhuixu1993/PC-DARTS, README.md and genotypes.py"
_PDARTS = "Chen et al. 2019, table 1 (figure unverified); chenxin061/pdarts, genotypes.py"
_MACS_DIFFER = (
    "parameters agree, multiply-accumulates do not: PyTorch's own counter finds ours (529,911,552) "
    "in the network that the authors' code builds too. With two operations for each output of a "
    "batch norm and one for each of a ReLU, as PC-DARTS counts, it has 544.0 M; where 574 M are "
    "from is not known (quark0/darts#46)"
)
_OTHERS_COUNTED = (
    "the figure counts two operations for each output of a batch norm and one for each of a ReLU: "
    "581.63 + 8.96 + 6.47 = 597.06 M; ours are convolutions and the linear layer"
)


def _cifar(
    name: str,
    params: Stated,
    source: str,
    difference: str = "",
    **settings: Any,
) -> Published:
    """Return a genotype's network in the form of DARTS' train.py: 20 cells of 36 channels."""
    genotype = Genotype.parse(GENOTYPES[name])
    form = {"form": "final", "layers": 20, "channels": 36, "auxiliary": True, "drop_path": 0.2}
    return Published(
        architecture=genotype.architecture,
        settings=form | genotype.settings | settings,
        input_shape=(3, 32, 32),
        classes=10,
        source=source,
        params=params,
        difference=difference,
    )


def _imagenet(name: str, params: Stated, macs: Stated, source: str, difference: str) -> Published:
    """Return it in the form of DARTS' train_imagenet.py: 14 cells of 48 channels."""
    genotype = Genotype.parse(GENOTYPES[name])
    form = {"form": "final", "layers": 14, "channels": 48, "stem": "imagenet", "auxiliary": True}
    return Published(
        architecture=genotype.architecture,
        settings=form | genotype.settings,
        input_shape=(3, 224, 224),
        classes=1000,
        source=source,
        params=params,
        macs=macs,
        difference=difference,
    )


def _millions(value: float, within: float = 0.05) -> Stated:
    return Stated(value * 1e6, within * 1e6)


PUBLISHED: Mapping[str, Published] = {
    "darts_v1": _cifar(
        "DARTS_V1",
        _millions(3.3),
        _DARTS.format(1),
        "the table gives 3.3 million for both orders; the first order's genotype has 3,169,414, "
        "by the authors' code as by ours",
    ),
    "darts_v2": _cifar("DARTS_V2", _millions(3.3), _DARTS.format(1)),
    "darts_v2_imagenet": _imagenet(
        "DARTS_V2", _millions(4.7), _millions(574, 0.5), _DARTS.format(3), _MACS_DIFFER
    ),
    "pc_darts": _cifar("PC_DARTS_cifar", _millions(3.6), _PC_DARTS, drop_path=0.3),
    "pc_darts_imagenet": _imagenet(
        "PC_DARTS_image",
        _millions(5.3),
        _millions(597, 0.5),
        f"{_PC_DARTS} (5.3: unverified)",
        _OTHERS_COUNTED,
    ),
    "pdarts": _cifar("PDARTS", _millions(3.4), _PDARTS, drop_path=0.3),
    "nasnet_a": _cifar("NASNet", _millions(3.1), _DARTS_RETRAINED, channels=32),
    "amoebanet_a": _cifar("AmoebaNet", _millions(3.1), _DARTS_RETRAINED),
}
