"""What breaks (tests/fault), in short: whatever was acknowledged is found."""

import os

import pytest
from fault import rows
from lib import netns
from lib.sluice import SANITIZED

NEEDS_NAMESPACES = [rows.link_down]
NEEDS_ROOT = [rows.spool_disk_full]
NEEDS_PRELOAD = [rows.spool_not_synced, rows.spool_not_read]


@pytest.fixture
def world(tmp_path, broker):
    one = rows.World(tmp_path, broker=broker)
    yield one
    one.remove(one.held)


@pytest.mark.kafka
@pytest.mark.parametrize("row", rows.ROWS, ids=[row[1].replace(" ", "-") for row in rows.ROWS])
def test_nothing_acknowledged_is_lost(world, row):
    _, _, function, arguments = row
    if function in NEEDS_NAMESPACES and not netns.possible():
        pytest.skip("no network namespaces here")
    if function in NEEDS_PRELOAD and SANITIZED:
        pytest.skip("a sanitizer wants to be the first library")
    if function in NEEDS_ROOT and os.geteuid() != 0:
        pytest.skip("not allowed to mount")
    account = function(world, **arguments)
    world.close()
    assert account.acknowledged and not account.lost, vars(account)
    world.held = True
