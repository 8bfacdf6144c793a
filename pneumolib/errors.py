"""The errors that pneumolib raises: one base class, and leaves that are built-in errors too.

Every message follows one form: what is wrong, what is allowed (or the way out), and what came.
"""


class PneumolibError(Exception):
    """Base of every error that pneumolib raises on purpose; catch it to catch them all."""


class ConfigError(PneumolibError, ValueError):
    """A setting is outside what is allowed, or two settings contradict each other."""


class DataError(PneumolibError, ValueError):
    """A data set, a split or an array is not what the call needs."""


class DataNotFoundError(PneumolibError, FileNotFoundError):
    """No data set, detector or file stands where it was looked for."""


class DownloadError(PneumolibError, OSError):
    """The data set could not be fetched; the message names the cause and the way out."""


class ImageError(PneumolibError, ValueError):
    """A file is no image that pneumolib reads: the message says why, and what is allowed."""


class ImageTooLargeError(ImageError):
    """An image exceeds the limit on bytes or on pixels, and was refused before decoding."""


class UnsupportedImageError(ImageError):
    """A file is of a format that is not read at all, whole or damaged."""


class ArtifactError(PneumolibError, ValueError):
    """A saved detector, checkpoint or store is damaged, foreign, or of an unknown version."""


class MissingExtraError(PneumolibError, ImportError):
    """An optional feature was called whose packages are not installed; the message names the extra."""


class ServerError(PneumolibError, OSError):
    """The server could not start: its address cannot be had, or the detector is not the one that was saved."""


class DistributionError(PneumolibError, RuntimeError):
    """Processes that train together lost one of them; the run goes on from its last epoch when all start again."""
