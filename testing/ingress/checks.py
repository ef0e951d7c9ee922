"""The checks, one for each promise of an ingress provider. Each begins without a route and leaves none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deployer.testing.ingress import bounds, ownership, repeating, routing, splits
from deployer.testing.ingress.bench import Bench

Check = Callable[[Bench], None]

SPLIT_CHECKS: Sequence[Check] = (
    splits.a_split_divides_the_traffic_until_it_is_taken_back,
    splits.a_switch_ends_a_split,
    splits.the_way_back_ends_a_split_that_went_live,
    splits.a_match_leads_only_those_requests_to_the_new_version,
    splits.a_split_can_be_made_again_and_cleared,
    splits.a_crash_in_a_split_is_mended_either_way,
    splits.an_earlier_holder_splits_nothing,
)
"""Those about splits."""

CHECKS: Sequence[Check] = (
    routing.state_tells_where_the_route_leads,
    routing.confirm_returns_when_the_new_version_answers,
    routing.switching_back_restores_everything,
    routing.a_preview_shows_the_new_version_only_until_it_is_released,
    routing.a_preview_host_goes_over_to_the_newer_version,
    *SPLIT_CHECKS,
    repeating.every_verb_can_be_repeated,
    repeating.a_crash_before_any_write_is_mended_by_going_on,
    repeating.a_crash_before_any_write_is_mended_by_going_back,
    ownership.everything_is_marked_as_ours,
    ownership.a_foreign_route_is_never_touched,
    ownership.another_apps_objects_are_never_touched,
    ownership.another_apps_host_is_found,
    ownership.an_earlier_holder_writes_nothing_more,
    ownership.what_others_add_at_the_same_time_is_kept,
    bounds.a_silent_data_plane_ends_at_the_deadline,
    bounds.remove_leaves_nothing,
)
