"""Operations that the spec lacks, as files that a package ships: one operation a file, numpy alone, the whole image.

A recipe names them `source: im2im_zoo/FILE.py`. They run without consent wherever a file has the bytes of one of
these; so changing a byte makes every package that has the earlier one ask.
"""
