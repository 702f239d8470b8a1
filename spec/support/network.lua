--- Programs in a network and mount namespace of their own: with nothing but loopback, where port 53 is free, and with
--- their own /etc/resolv.conf, /etc/hosts and /etc/nsswitch.conf. The namespaces end with the program.

local process = require "spec.support.process"

local network = {}

local DEFAULTS = {
  resolv = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
  hosts = "127.0.0.1 localhost\n::1 localhost\n192.0.2.80 www.hosts.test www\n",
  nsswitch = "hosts: files dns\nservices: files\n",
}

-- How mounts travel. In a chroot / may be no mount point, so that unshare(1) cannot make it private; then it is left as
-- it is, which will do where mounts do not come out of the namespace (is_permitted looks).
local PRIVATE, AS_IT_IS = "private", "unchanged"
local propagation = PRIVATE

-- Brings loopback up, puts the files in place ($1 is where they are), runs the shell commands $2, and becomes the rest.
local PREPARE = [[
directory=$1 commands=$2
shift 2
ip link set lo up || exit 125
for name in resolv hosts nsswitch; do
  [ "$name" = hosts ] && target=/etc/hosts || target=/etc/$name.conf
  mount --bind "$directory/$name" "$target" || exit 125
done
eval "$commands" || exit 125
LD_PRELOAD=$preload exec "$@"
]]

local function write(path, text)
  local file <close> = assert(io.open(path, "w"))
  assert(file:write(text))
end

local function make_directory(files)
  local directory = os.tmpname()
  os.remove(directory)
  assert(os.execute(("mkdir '%s'"):format(directory)))
  for name, text in pairs(files) do
    write(directory .. "/" .. name, text)
  end
  return directory
end

-- The words of a command inside the namespaces. A library that is preloaded for ours is not for the tools.
local function words_of(directory, commands, words)
  local all = { "env", "LD_PRELOAD=", "preload=" .. (os.getenv("LD_PRELOAD") or ""), "unshare",
    "-m", "--propagation", propagation, "-n", "sh", "-c",
    PREPARE, "sh", directory, commands }
  return table.move(words, 1, #words, #all + 1, all)
end

local function files_of(program, files)
  local all = { ["program.lua"] = program }
  for name, text in pairs(DEFAULTS) do
    all[name] = files and files[name] or text
  end
  return all
end

--- Starts a Lua program with this library in namespaces of its own, after the shell `commands`. Hand it to `stop`.
---@param program string source text
---@param files { resolv: string?, hosts: string? }?
---@param commands string?
function network.start(program, files, commands)
  local directory = make_directory(files_of(program, files))
  local started = process.start(words_of(directory, commands or ":", process.lua(directory .. "/program.lua")))
  started.directory = directory
  return started
end

function network.stop(started)
  started:stop()
  os.execute(("rm -rf '%s'"):format(started.directory))
end

--- Runs such a program to its end; returns its output (stdout and stderr) and its exit code.
function network.run(program, files, commands, seconds)
  local started = network.start(program, files, commands)
  local ok, code = pcall(started.wait, started, seconds or 60)
  local output = ok and started:output() .. started:errors()
  network.stop(started)
  if not ok then error(code, 0) end
  return output, code
end

-- Do the mounts of a program stay in its namespace? Those that do not are undone.
local function mounts_stay_inside()
  local directory = make_directory { file = "" }
  local path = directory .. "/file"
  os.execute(("LD_PRELOAD= unshare -m --propagation unchanged mount --bind '%s' '%s' 2>/dev/null"):format(path, path))
  local outside = false
  for line in io.lines("/proc/self/mountinfo") do
    outside = outside or line:find(path, 1, true) ~= nil
  end
  if outside then os.execute(("LD_PRELOAD= umount '%s'"):format(path)) end
  os.execute(("rm -rf '%s'"):format(directory))
  return not outside
end

local function works()
  return select(2, network.run("", nil, nil)) == 0
end

local function probe()
  if not (process.exists("unshare") and process.exists("ip")) then return false end
  if works() then return true end
  if not mounts_stay_inside() then return false end
  propagation = AS_IT_IS
  return works()
end

local permitted

--- May this process make such namespaces? Call it inside a fiber or on the main thread.
function network.is_permitted()
  if permitted == nil then permitted = probe() end
  return permitted
end

return network
