from hypothesis import settings

# Machines under load are slow, not wrong.
settings.register_profile("models", deadline=None)
settings.load_profile("models")
