"""Published studies run again: their plan beside the same question asked our way, and their claims with verdicts.

In comes the name of a study; out go two ordinary comparisons (``linear/`` and ``log/`` below the directory of the
study) and a page that judges each claim on both.

``henderson2018.py`` is a study: its claims, its sources, what differs from it; ``catalogue.py`` lists the studies.
``measures.py`` takes from an analysed comparison what rules need, ``rules.py`` turns that into verdicts,
``results.py`` judges both plans, ``page.py`` and ``figures.py`` show them. Start in ``api.py``.
A new study is a module such as ``henderson2018.py``, two files in ``configs/`` and an entry in ``catalogue.py``.
"""
