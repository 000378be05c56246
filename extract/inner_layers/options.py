"""`--layers layer2,layer3` and `--layer-dtype layer2=float16`, read without torch."""

from collections.abc import Iterable
from typing import get_args

from extract.options import MapDtype
from store.errors import UserError

DTYPES: tuple[str, ...] = get_args(get_args(MapDtype)[0])


def named_layers(layers: str | None) -> list[str]:
    """The names in `--layers`, without spaces around them; none for None.

    Raises:
        UserError: one is empty or occurs twice.
    """
    if layers is None:
        return []
    names = [name.strip() for name in layers.split(",")]
    if not all(names):
        raise UserError(
            f"--layers {layers!r}: has an empty name; expected names of the network's modules, as in "
            "layer2,layer3"
        )
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise UserError(f"--layers {layers}: names {twice} twice; name each layer once")
    return names


def layer_dtypes(layers: Iterable[str], dtype: str, own: Iterable[str]) -> dict[str, str]:
    """The dtype of each layer's maps.

    Args:
        layers: names in `--layers`.
        dtype: that of the feature maps.
        own: texts of `--layer-dtype`, as layer2=float16.

    Raises:
        UserError: one is not name=dtype, names a layer that is not in `layers`, or names one twice.
    """
    names = list(layers)
    named: dict[str, str] = {}
    for text in own:
        layer, equals, of_layer = (part.strip() for part in text.partition("="))
        if not equals or of_layer not in DTYPES:
            raise UserError(
                f"--layer-dtype {text}: expected a layer and its dtype, as in layer2=float16; a dtype is one "
                f"of {', '.join(DTYPES)}"
            )
        if layer not in names:
            found = f"--layers names {', '.join(names)}" if names else "name the layer in --layers"
            raise UserError(f"--layer-dtype {text}: {layer} is not stored; {found}")
        if layer in named:
            raise UserError(f"--layer-dtype {text}: {layer} has {named[layer]} already; name it once")
        named[layer] = of_layer
    return {name: named.get(name, dtype) for name in names}
