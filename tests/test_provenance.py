"""What counts as a change of code."""

from workflow.provenance import code_sha256, environment


def digest(tmp_path, text):
    file = tmp_path / "module.py"
    file.write_text(text)
    return code_sha256([file])


def test_comments_docstrings_and_layout_do_not_count_and_code_does(tmp_path):
    plain = digest(tmp_path, 'def f(x):\n    """Old."""\n    return x + 1\n')
    assert digest(tmp_path, 'def f( x ):\n    """New."""\n\n    return x+1  # why\n') == plain
    assert digest(tmp_path, 'def f(x):\n    """Old."""\n    return x + 2\n') != plain


def test_the_card_of_a_loss_does_not_count(tmp_path):
    def loss(body):
        return digest(tmp_path, f'class Loss:\n    name = "a"\n{body}')

    assert loss('    about = About(title="one")\n') == loss('    about = About(title="other")\n')
    assert loss("    about = None\n") != loss("    squared = True\n")


def test_a_string_that_is_no_docstring_counts(tmp_path):
    assert digest(tmp_path, 'def f():\n    return "a"\n') != digest(
        tmp_path, 'def f():\n    return "b"\n'
    )


def test_the_environment_names_what_a_rerun_needs():
    found = environment()
    assert {"python", "torch", "monai", "platform", "cores", "commit"} <= set(found)
    assert found["torch"] != "not installed"
