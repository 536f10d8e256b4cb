"""What a user can mend, said in one line: what, where, the rule, the way out."""


class DataError(Exception):
    """The images asked for cannot be used."""


class DeviceError(Exception):
    """The device asked for cannot be used."""


class DeviceLost(Exception):
    """The device failed under a training that is not to blame for it."""
