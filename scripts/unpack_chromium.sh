#!/bin/sh
# unpack_chromium.sh FOLDER DRIVER: Debian's Chromium, and what it and Playwright's driver need and this machine lacks, unpacked
# into FOLDER. Nothing is installed: an installation would bring services, and the accounts that those make.
# Afterwards FOLDER/chromium starts the browser and FOLDER/node the driver (for PLAYWRIGHT_NODEJS_PATH), DRIVER being its node.
set -eu
[ $# -eq 2 ] || { sed -n '2,4p' "$0" >&2; exit 2; }
folder=$1 driver=$2

rm -rf "$folder"
mkdir -p "$folder/packages" "$folder/root"
folder=$(cd "$folder" && pwd)
cd "$folder/packages"
[ "$(id -u)" != 0 ] || apt-get update -qq
# shellcheck disable=SC2046 # names of packages
apt-get download -qq $(apt-get install --simulate --no-install-recommends chromium libatomic1 | sed -n 's/^Inst \([^ ]*\) .*/\1/p') 2>&1 |
    grep -v unsandboxed >&2 || true
for package in *.deb; do dpkg -x "$package" "$folder/root"; done
cd ..
rm -rf packages

libraries=$(cd root && find usr lib -name '*.so*' -printf "$folder/root/%h\n" | sort -u | paste -sd: -)
cat >fonts.conf <<END
<fontconfig>
  <dir>/usr/share/fonts</dir>
  <dir>$folder/root/usr/share/fonts</dir>
  <cachedir>$folder/cache</cachedir>
  <include ignore_missing="yes">$folder/root/etc/fonts/conf.d</include>
</fontconfig>
END

# start NAME PROGRAM: a script that gives PROGRAM the libraries and fonts of the folder.
start() {
    cat >"$1" <<END
#!/bin/sh
FONTCONFIG_FILE='$folder/fonts.conf' LD_LIBRARY_PATH='$libraries' exec '$2' "\$@"
END
    chmod +x "$1"
}
start chromium "$folder/root/usr/lib/chromium/chromium"
start node "$driver"
./node --version >/dev/null
./chromium --version >/dev/null
