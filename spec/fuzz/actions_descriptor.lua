--- Descriptors of others: waiting for them, passing them on, closing them at any moment, having too few of
--- them.

local ip = require "ip"
local api = require "spec.fuzz.api"
local faults = require "spec.fuzz.faults"
local world = require "spec.fuzz.world"

local F, S, D = api.fiber, api.socket, api.fd

local actions = {}

local events = { "r", "w", "rw" }

local function wait(r, fd)
  local wanted = r:pick(events)
  local ok, got = world.try("wait_fd", F.with_timeout, r:seconds(), F.wait_fd, fd, wanted)
  if ok and not wanted:find(got, 1, true) and got ~= wanted then
    world.fault(("wait_fd for %s returned %s"):format(wanted, tostring(got)))
  end
end

function actions.wait_fd_stable(r)
  wait(r, r:pick(world.stable).sock.native_handle)
end

-- The socket may be closed meanwhile, in the same turn or later, and its number be used again.
function actions.wait_fd_wild(r)
  local sock = world.wild_socket(r)
  if sock.is_open then wait(r, sock.native_handle) end
end

-- Waits for a descriptor, which another fiber closes at once, in one of the ways there are.
function actions.wait_fd_close(r)
  local ok, sock = world.try("bind", api.udp.bind, "127.0.0.1", 0)
  if not ok then return end
  world.all_wild[sock] = true
  local seconds = r:seconds()
  local number = sock.native_handle
  local kind = r:int(1, 5)
  world.log("closes a descriptor that is waited for, way %d", kind)
  local wanted = r:pick(events)
  world.note_fiber(F.spawn(world.try, "wait_fd", F.with_timeout, 0.005 + seconds, F.wait_fd, number, wanted))
  if r:one_in(3) then world.note_fiber(F.spawn(world.try, "receive", S.receive_string, sock)) end
  local holder = { sock }
  world.note_fiber(F.spawn(function()
    if r:one_in(3) then F.yield() end
    local own = table.remove(holder)
    if kind == 1 then
      S.close(own)
    elseif kind == 2 then
      D.close(S.release(own))
    elseif kind == 3 then
      own = nil -- luacheck: ignore own
      collectgarbage()
    elseif kind == 4 then
      local closed <close> = own -- luacheck: ignore closed
    else
      local fd <close> = S.release(own) -- luacheck: ignore fd
    end
    if r:one_in(2) then world.open_wild(r) end -- which gets the number
  end))
end

function actions.wait_fd_odd(r)
  local fd = r:pick { -1, 0, 1, 2, 5, 17, 99, 4000, 1 << 40 }
  if fd >= 0 and fd <= 2 then fd = 4000 end -- the terminal is not the fuzzer's
  world.try("wait_fd", F.with_timeout, 0.001, F.wait_fd, fd, r:pick(events))
end

local function keep(fd)
  if #world.fds > 10 then table.remove(world.fds, 1) end
  world.fds[#world.fds + 1] = fd
end

function actions.wild_release(r)
  local ok, fd = world.try("release", S.release, world.wild_socket(r))
  if ok then keep(fd) end
end

function actions.descriptor(r)
  if #world.fds == 0 then return end
  local fd = r:pick(world.fds)
  local kind = r:int(1, 4)
  if kind == 1 then
    world.try("close", D.close, fd)
  elseif kind == 2 then
    local ok, twin = world.try("dup", D.dup, fd)
    if ok then keep(twin) end
  elseif kind == 3 then
    local ok, number = world.try("release", D.release, fd)
    if ok then keep(api.descriptor.new(number)) end
  elseif #tostring(fd) == 0 then
    world.fault("a descriptor without text")
  end
end

function actions.wild_assign(r)
  if #world.fds == 0 then return end
  local sock = world.wild_socket(r)
  if r:one_in(2) then world.try("close", S.close, sock) end
  local fd = r:pick(world.fds)
  if r:one_in(3) then
    world.try("assign", S.assign, sock, fd)
  else
    world.try("assign", S.assign, sock, r:pick { "v4", "v6" }, fd)
  end
end

function actions.wait_fd_of_descriptor(r)
  if #world.fds == 0 then return end
  local fd = r:pick(world.fds)
  local number = tonumber(tostring(fd):match("^/dev/fd/(%d+)$"))
  if number then wait(r, number) end
end

-- A few free descriptors are left for a call that needs some. The limit is low (scripts/fuzz.sh).
function actions.few_descriptors(r)
  local held = {}
  while #held < 1000 do
    local file = io.open("/dev/null")
    if not file then break end
    held[#held + 1] = file
  end
  if #held < 1000 then
    for _ = 1, r:int(0, 3) do
      if #held > 0 then table.remove(held):close() end
    end
    local kind = r:int(1, 6)
    if kind == 1 then world.try("bind", api.udp.bind, "127.0.0.1", 0) end
    if kind == 2 then world.try("look-up", F.with_timeout, 0.01, api.udp.get_address_info, "localhost", 1) end
    if kind == 3 then wait(r, world.stable[1].sock.native_handle) end
    if kind == 4 and not faults.active then world.try("interfaces", api.ip.interfaces) end
    if kind == 5 and #world.fds > 0 then world.try("dup", D.dup, world.fds[1]) end
    if kind == 6 then
      world.try("wait_signal", F.with_timeout, 0.001, F.wait_signal, r:pick(world.signals))
    end
  end
  for _, file in ipairs(held) do file:close() end
end

-- The end of a pipe that another process holds: readable at its end.
function actions.pipe(r)
  if not r:one_in(6) then return end
  local sock = ip.udp.bind("127.0.0.1", 0)
  local fd <close> = S.release(sock)
  local twin <close> = D.dup(fd)
  wait(r, tonumber(tostring(twin):match("%d+")))
end

return actions
