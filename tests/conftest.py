"""What holds for all tests: no property is judged by how long a try took, since machines differ and are busy."""

from hypothesis import settings

settings.register_profile("persona", deadline=None)
settings.load_profile("persona")
