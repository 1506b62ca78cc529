"""`crykit devices`: the microphones of this machine."""

from __future__ import annotations

import sys

import click


@click.command("devices")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    help="For people (default on a terminal), or one JSON array.",
)
def command(format_: str | None) -> None:
    """List the microphones; the number or part of the name goes to `crykit listen --device`."""
    import dataclasses

    import msgspec

    from crykit.errors import DeviceError
    from crykit_app.capture import input_devices, no_device_hint

    devices = input_devices()
    if (format_ or ("table" if sys.stdout.isatty() else "json")) == "json":
        rows = [dataclasses.asdict(device) for device in devices]
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
    elif devices:
        click.echo(f"{'':2}{'no.':>4}  {'name':<44}  {'rate':>8}  {'channels':>8}  system")
        for device in devices:
            mark = "* " if device.is_default else "  "
            click.echo(
                f"{mark}{device.index:>4}  {device.name:<44}  {device.sample_rate_hz:>5} Hz"
                f"  {device.channels:>8}  {device.host_api}"
            )
    sys.stdout.flush()
    if not devices:
        raise DeviceError(f"no microphone found; {no_device_hint()}")
