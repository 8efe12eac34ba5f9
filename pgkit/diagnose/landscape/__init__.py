"""Pictures of the return around a policy: lines, cliffs, paths and planes in the space of its parameters.

In comes a run with checkpoints; out go tables, sentences, figures and a page (``pgkit landscape RUN``). ``cuts.py``
plays all points of a line, path or plane on the same episodes; ``directions.py`` says where lines and planes go;
``lines.py``, ``paths.py`` and ``planes.py`` are pure functions of vectors and returns; ``figures.py`` draws;
``words.py`` says what a picture shows and what it does not. ``request.py`` and ``targets.py`` find the policies that a
picture is about, ``measure.py`` plays, ``present.py`` makes tables, figures and the page, ``estimate.py`` says before
what it will take. ``run.py`` does all of it for one run. Start there.
"""
