"""Steps that lead the unversioned Service to the new version and back, and remove it."""

from __future__ import annotations

import dataclasses

from deployer.core.contract.strategy import Done, Duty, Outcome, Phase, Step, Work
from deployer.core.model.kind import SERVICE
from deployer.core.model.names import service_name
from deployer.kube.pods import name_of
from deployer.toolkit.steps.guard import while_it_serves
from deployer.toolkit.steps.route import SERVICE_HOLD, MovesTraffic, confirm
from deployer.toolkit.workload import await_serving, put_service


class MoveService(MovesTraffic):
    """Lead the unversioned Service to the new version: ports and selector in one write. A stable route follows it."""

    id = "move-service"
    phase = Phase.CONFIRM
    disturbs = True
    exposes = True
    fulfils = (Duty.SERVICE,)

    def run(self, work: Work) -> Outcome:
        wanted = work.plan.objects.service
        if wanted is None:
            return Done()
        if work.ingress and work.plan.route and not work.plan.route.stable:
            with while_it_serves(work) as scope:  # it has traffic already
                await_serving(dataclasses.replace(work, kube=work.kube.with_scope(scope), scope=scope), fresh=True)
        else:
            await_serving(work, fresh=True)
        before = work.plan.previous.service_object if work.plan.previous else None
        put_service(work.kube, wanted, instead_of=before)
        work.log(f"service {name_of(wanted)} selects version {work.plan.version}")
        if work.ingress and work.plan.route and work.plan.route.stable:
            confirm(work)
        return Done()

    def undo(self, work: Work) -> None:
        wanted = work.plan.objects.service
        if wanted is None:
            return
        found = work.kube.get(SERVICE, name_of(wanted))
        if found is None or found["spec"].get("selector") != wanted["spec"]["selector"]:
            return
        previous = work.plan.previous
        before = previous.service_object if previous else None
        if previous is None or before is None:
            work.kube.delete_shared(SERVICE, name_of(wanted))
            return
        self.require_way_back(work, previous.service)
        # It is marked as the previous deployment's again, and not as this one's, of which nothing may stay.
        put_service(work.kube.for_deployment(previous.deployment), before, instead_of=wanted)
        work.log(f"service {name_of(wanted)} selects version {previous.version} again")
        # Nodes and clients inside the cluster follow a little later.
        work.scope.pause(min(work.plan.settings.proxysleep, SERVICE_HOLD))


class RemoveService(Step):
    """Remove the unversioned Service."""

    id = "remove-service"
    phase = Phase.RETIRE

    def run(self, work: Work) -> Outcome:
        name = service_name(work.plan.app)
        found = work.kube.get(SERVICE, name)
        selected = ((found or {}).get("spec", {}).get("selector") or {}).get("version")
        if selected not in (None, work.plan.version):
            work.log(f"service {name} selects version {selected} and not version {work.plan.version}: it stays")
            return Done()
        if work.kube.delete_shared(SERVICE, name) and found is not None:
            work.log(f"removed service {name}")
        return Done()
