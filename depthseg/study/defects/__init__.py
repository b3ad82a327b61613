"""The price of each defect of the released code of Lao et al.: switches that put one back, around an unchanged run.

`switches` lists them, `matrix` makes trials of them, `data`, `training` and `scoring` are what they do, `prices` is
what they cost. Models, image processors and the engine know none of them.
"""
