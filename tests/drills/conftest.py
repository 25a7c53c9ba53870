from tests.deploy.conftest import guarded

__all__ = ["guarded"]
