"""`deployer login`, `logout`, `config`, `completion` and `version`: what is about the client itself."""

from __future__ import annotations

from typing import Any

import click

import deployer
from deployer.client import configuration
from deployer.client.errors import ClientError, ExitCode, Misused
from deployer.client.output.formats import emit, fields, output_flag, table
from deployer.client.session import Session, say, session

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Get a token from the identity provider.")
@session
@click.option("--issuer", metavar="NAME", default=None, help="Which identity provider, where the service has several.")
def login(session: Session, issuer: str | None) -> int:
    """Log in at the service's identity provider, in a browser on whatever machine.

    The service says where; `issuer` and `client_id` of the profile win over that. The profile then keeps both and the
    service's URL, and a file that only you can read the token, which is refreshed.
    """
    from deployer.client.auth.device import Login
    from deployer.client.auth.discovery import NoLogin, completed
    from deployer.client.auth.tokens import used_instead

    profile = session.profile
    kept = configuration.stored(profile.name)
    if kept.get("server", profile.server).rstrip("/") != profile.server.rstrip("/"):
        raise Misused(
            f"profile {profile.name} is for {kept['server']}; `deployer config set server {profile.server} --profile "
            f"NAME` makes one for this service, and `deployer login --profile NAME` logs in there"
        )
    try:
        with session.waiting():
            profile, audience = completed(profile, issuer)
    except NoLogin as error:
        _keep(profile, "server")
        say(str(error))
        return ExitCode.DONE

    def tell(address: str, code: str, complete: str) -> None:
        say(f"Open {address} in a browser and type the code {code}")
        if complete:
            say(f"or open {complete}")

    Login(profile).log_in(tell, audience)
    _keep(profile, "issuer", "client_id", "scope", "server")
    say(f"logged in at {profile.issuer}")
    if other := used_instead(profile):
        name = "the variable DEPLOYER_TOKEN" if other == "token" else f"`{other}`"
        say(f"deployer: {name} is set, and is used instead of this login")
    return ExitCode.DONE


def _keep(profile: configuration.Profile, *keys: str) -> None:
    """Write into the settings what of the profile is neither there nor a default."""
    kept, defaults = configuration.stored(profile.name), configuration.Profile()
    found = {key: getattr(profile, key) for key in keys}
    values = {key: value for key, value in found.items() if value != getattr(defaults, key)}
    if any(kept.get(key) != value for key, value in values.items()):
        configuration.store(profile.name, values)


@click.command(short_help="Forget the token of `login`.")
@session
def logout(session: Session) -> int:
    """Forget the tokens that `deployer login` has kept for the profile."""
    from deployer.client.auth.device import Login

    say("logged out" if Login(session.profile).log_out() else "was not logged in")
    return ExitCode.DONE


@click.group(short_help="Show and change the client's settings.")
def config() -> None:
    """Show and change the client's settings: profiles in ~/.config/deployer/config.toml.

    Flags win over DEPLOYER_* variables, variables over the profile.
    """


@config.command("view")
@session
@output_flag
def view(session: Session, output: str | None) -> int:
    """Show the settings that are in effect, and where the file is. No token is shown."""
    profile = session.profile
    found = {"file": str(configuration.config_file()), "profile": profile.name}
    found |= {key: getattr(profile, key) for key in configuration.KEYS if getattr(profile, key)}
    if profile.token:
        found["token"] = "(of the variable DEPLOYER_TOKEN)"
    if output is not None:
        emit(output, found, [profile.name])
    else:
        fields(found.items())
    return ExitCode.DONE


@config.command("profiles")
@output_flag
def profiles(output: str | None) -> int:
    """List the profiles; the one that is used by default has a star."""
    document = configuration.read_document(configuration.config_file())
    default = document.get("profile", "default")
    found = [
        {"name": name, "default": name == default, **values} for name, values in document.get("profiles", {}).items()
    ]
    if output is not None:
        emit(output, found, (str(profile["name"]) for profile in found))
        return ExitCode.DONE
    rows = [("*" if p["default"] else "", p["name"], p.get("server", "-"), p.get("namespace", "-")) for p in found]
    table(("", "NAME", "SERVER", "NAMESPACE"), rows, empty="there are no profiles; `deployer config set` makes one")
    return ExitCode.DONE


@config.command("set")
@click.argument("key")
@click.argument("value")
@click.option("--profile", metavar="NAME", help="Profile.  [default: the one that is used]")
def set_(key: str, value: str, profile: str | None) -> int:
    """Set a key of a profile, which is made when it is not there. An empty VALUE removes the key.

    Keys: server, namespace, token_file, kubeconfig, kube_context, issuer, client_id, scope, oidc_audience, ca_file,
    proxy, tls_verify.
    """
    configuration.check_key(key, "deployer config set")
    name = profile or str(configuration.read_document(configuration.config_file()).get("profile", "default"))
    path = configuration.store(name, {key: value})
    say(f"{path}: profile {name}: {key} is {'set' if value else 'removed'}")
    return ExitCode.DONE


@config.command("use")
@click.argument("profile")
def use(profile: str) -> int:
    """Use a profile by default from now on."""
    path = configuration.config_file()
    document = configuration.read_document(path)
    if profile not in document.get("profiles", {}):
        known = ", ".join(sorted(document.get("profiles", {}))) or "none"
        raise Misused(f"there is no profile {profile!r} in {path}; available: {known}")
    document["profile"] = profile
    configuration.write_document(path, document)
    say(f"profile {profile} is used by default")
    return ExitCode.DONE


@click.command(short_help="Print the completion of a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print what makes a shell complete verbs, flags, files, and the names of apps at the service.

    \b
    bash:  eval "$(deployer completion bash)"        in ~/.bashrc
    zsh:   eval "$(deployer completion zsh)"         in ~/.zshrc
    fish:  deployer completion fish | source         in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    # The text alone, without the check of bash's version, which would run bash.
    root = context.find_root().command
    click.echo(made.source_template % made(root, {}, "deployer", "_DEPLOYER_COMPLETE").source_vars())
    return ExitCode.DONE


@click.command(short_help="Versions of this client and of the service.")
@session
@click.option("--client", "only_client", is_flag=True, help="Do not ask the service.")
@output_flag
def version(session: Session, only_client: bool, output: str | None) -> int:
    """Show the versions of this client and of the service."""
    found: dict[str, Any] = {"client": deployer.__version__}
    code = ExitCode.DONE
    if not only_client:
        try:
            found |= {"service": str(session.service.start().get("version", "?")), "server": session.profile.server}
        except ClientError as error:
            say(f"deployer: {error}")
            code = error.exit_code
    if output is not None:
        emit(output, found, [str(found["client"])])
    else:
        fields((name, str(value)) for name, value in found.items())
    return code
