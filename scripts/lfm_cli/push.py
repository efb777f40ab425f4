"""Push a policy to the Hugging Face hub, with a card: `lfm push policy=outputs/lift repo=user/lift`.

The card tells of the evaluation that lies where lfm evaluate puts it, if it is one of this very policy. From then on
the policy is opened by name: `open_policy("user/lift")`, lfm evaluate policy=user/lift.
"""

from pydantic import Field

from lfm_policy.choices import Place, Source
from lfm_policy.settings import Frozen


class Settings(Frozen):
    """Which policy, and where to."""

    policy: Source = Field(description="checkpoint, training run, bundle or LeRobot's pretrained_model: a folder")
    repo: str = Field(description="USER/NAME on the hub; made where there is none")
    private: bool = Field(default=False, description="whether a repository that is made is private")
    revision: str | None = Field(default=None, description="branch to commit to; null: main")
    results: Place | None = Field(
        default=None,
        description="summary.json of an evaluation of this policy, for the card; null: the one in the policy's folder "
        "or below outputs/evaluate",
    )
    trust_code: bool = Field(default=False, description="import networks of your own that a checkpoint names")


def main(settings: Settings) -> None:
    """Collect, push, and say where it went."""
    from lfm_cli.places import folder_of
    from lfm_policy.bundles.push import push_to_hub

    pushed = push_to_hub(
        settings.policy,
        settings.repo,
        results=settings.results,
        beside=(folder_of(settings.policy),),
        private=settings.private,
        revision=settings.revision,
        trust_code=settings.trust_code,
    )
    if pushed.results is None:
        print("the card says nothing new of success: no evaluation of this policy was found (lfm evaluate, results=)")
    else:
        print(f"the card tells of {pushed.results['success']:.3f} over {pushed.results['episodes']} episodes")
    print(f"{pushed.files} files at {pushed.url} ({pushed.commit[:8]})")
    print(f"next: lfm evaluate policy={pushed.repository}")
