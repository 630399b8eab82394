"""`python -m im2im_zoo`: the command line."""

from im2im_zoo.cli import main

main()
