"""dulwich against a node: clones URL into FOLDER by the authority in CA, commits, pushes.

usage: dulwich_client.py URL CA FOLDER, with the token in TEST_TOKEN
"""

import os
import sys

import urllib3
from dulwich import porcelain
from dulwich.client import HttpGitClient
from dulwich.repo import Repo

AUTHOR = b"Tester <tester@example.org>"
BRANCH = b"refs/heads/main"


def main(url, authority, folder):
    base, path = url.split("/flows/", 1)
    client = HttpGitClient(
        base,
        pool_manager=urllib3.PoolManager(ca_certs=authority),
        username="any",
        password=os.environ["TEST_TOKEN"],
    )
    path = "flows/" + path
    client.clone(path, folder, mkdir=True)
    with Repo(folder) as repository:
        name = os.path.join(folder, "by-dulwich")
        with open(name, "w", encoding="ascii") as file:
            file.write("here\n")
        porcelain.add(repository, [name])
        porcelain.commit(repository, message=b"by dulwich", author=AUTHOR, committer=AUTHOR)
        head = repository.refs[BRANCH]
        result = client.send_pack(
            path, lambda _: {BRANCH: head}, repository.generate_pack_data
        )
        assert not any((result.ref_status or {}).values()), result.ref_status


main(*sys.argv[1:])
