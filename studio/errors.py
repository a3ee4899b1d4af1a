"""What can go wrong because of what a person gave us. Each message says what is wrong and what to do, in one line.

StudioError
├── AdapterError        an adapter file or an adapter's settings
├── DatasetError        a folder, a picture, a zip, a caption file
├── ConfigError         a setting out of range or unknown
├── BaseModelError      a base model that is missing or unfit
├── GenerationError     a prompt, a size, a recipe
├── RunError            a run that can't start, resume or go on
├── BusyError           the device is held by another job
├── NotAllowedError     what this server does not let people do
└── WorkspaceError      a name or a place outside what the person owns

The UI shows the message, the command line prints it and exits 2. Anything else is a bug and keeps its traceback.
"""


class StudioError(Exception):
    """The root: something a person can mend."""


class AdapterError(StudioError): ...


class DatasetError(StudioError): ...


class ConfigError(StudioError): ...


class BaseModelError(StudioError): ...


class GenerationError(StudioError): ...


class RunError(StudioError): ...


class BusyError(StudioError): ...


class NotAllowedError(StudioError): ...


class WorkspaceError(StudioError): ...
