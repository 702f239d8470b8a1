--- memory.lua COUNT: makes COUNT idle sockets with a fiber waiting on each, and prints the bytes of memory
--- per socket.

local byte_span = require "byte_span"
local ip = require "ip"

local function resident()
  collectgarbage()
  collectgarbage()
  local file <close> = assert(io.open("/proc/self/status"))
  return tonumber(file:read("a"):match("VmRSS:%s*(%d+) kB")) * 1024
end

local count = tonumber(arg[1])
local buffer = byte_span.new(1500)

local function wait(sock) sock:receive_from(buffer) end

local before = resident()
for _ = 1, count do ip.fiber.spawn(wait, ip.udp.bind("127.0.0.1", 0)) end
ip.fiber.yield()
print((resident() - before) // count)
os.exit(0, false)
