"""What a user can mend, said in one line: what, where, the rule, the way out."""


class DataError(Exception):
    """The images asked for cannot be used."""


class DeviceError(Exception):
    """The device asked for cannot be used."""
