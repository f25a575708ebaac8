export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@example.com GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@example.com
git init -q -b main repo && cd repo
for d in $(seq 10); do mkdir d$d; for f in $(seq 110); do echo "contents $d $f" > d$d/f$f; done; done
git add . && git commit -qm first && git rev-parse HEAD
git ls-files | wc -l; git status --porcelain | wc -l
for i in $(seq 5); do echo change $i >> d$i/f1; git commit -qam "change $i"; done
git log --oneline | wc -l; git rev-parse HEAD; git diff --stat HEAD~3 | tail -1
git checkout -qb side HEAD~2; echo side > side; git add side; git commit -qm side; git checkout -q main; git merge -q -m merge side 2>&1; git rev-parse HEAD^{tree}
git gc -q; ls .git/objects/pack | wc -l; git fsck --full 2>&1 | grep -v dangling; echo "fsck $?"
cd ..; git clone -q repo clone && cd clone && git log --oneline | wc -l && git fsck 2>/dev/null; git ls-files | wc -l; diff -r --exclude=.git . ../repo && echo same
git clone -q --bare ../repo ../bare.git && cd ../bare.git && git rev-list --count HEAD
cd ../clone; git tag v1; git archive v1 | tar t | wc -l; git stash list | wc -l; git grep -c 'contents 3 7$' | tail -1; git blame -s d1/f1 | wc -l
