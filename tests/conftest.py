"""Order of the tests."""


def pytest_collection_modifyitems(items):
    """The real workflow takes longest, so it starts first and the rest runs beside it."""
    items.sort(key=lambda item: item.path.parent.name != "workflow")
