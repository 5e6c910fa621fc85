import pytest
from pydantic import ValidationError

from hwnas.spaces.conv_chain import ConvChain
from hwnas.testing.spaces import SpaceSuite


class TestConvChain(SpaceSuite):
    make = staticmethod(lambda: ConvChain(ConvChain.Config(), (1, 8, 8), 10))
    make_small = staticmethod(
        lambda: ConvChain(ConvChain.Config(max_depth=3, max_width=32), (1, 8, 8), 10)
    )

    def test_its_decisions_depend_on_the_depth(self):
        with pytest.raises(Exception, match="no fixed list of decisions"):
            self.make().decisions()


@pytest.mark.parametrize(
    "mistake", [{"ops": ("convv",)}, {"min_depth": 9}, {"kernels": (4,)}, {"kernel": (3,)}]
)
def test_settings_that_make_no_space_are_refused(mistake):
    with pytest.raises(ValidationError):
        ConvChain.Config(**mistake)
