-- The other end of spec/support/namespaces.lua: runs the chunks of Lua that come on stdin, one after the other, on the
-- main thread of a process of its own, and answers each on stdout. Global variables stay from one to the next.

local ip = require "ip"

local DEADLINE = 10 -- seconds for a chunk

local env = setmetatable({ ip = ip, fiber = ip.fiber, byte_span = ip.byte_span }, { __index = _G })

local kept = {}

-- Keeps a socket until clean(), which closes all that were kept.
function env.keep(sock)
  kept[#kept + 1] = sock
  return sock
end

function env.clean()
  for _, sock in ipairs(kept) do
    sock:close()
  end
  kept = {}
end

-- The name of the error value that fn(...) raises, or its text; "none" when it raises none.
function env.error_of(fn, ...)
  local ok, err = pcall(fn, ...)
  if ok then return "none" end
  return type(err) == "string" and err or err.name
end

-- The bytes of the next datagram alone.
function env.next_of(sock)
  return (sock:receive_string())
end

-- A frame is its length in bytes, a newline and its bytes.
local function read_frame()
  local length = io.read("n")
  if length == nil then return nil end
  io.read(1)
  return io.read(length)
end

local function write_frame(text)
  io.write(#text, "\n", text)
end

local function to_text(ok, ...)
  local words = table.pack(...)
  for i = 1, words.n do
    words[i] = tostring(words[i])
  end
  return ok, table.concat(words, " ")
end

for source in read_frame do
  local chunk, problem = load(source, "=agent", "t", env)
  local ok, text
  if chunk == nil then
    ok, text = false, problem
  else
    ok, text = to_text(pcall(ip.fiber.with_timeout, DEADLINE, chunk))
  end
  write_frame(ok and "ok" or "failed")
  write_frame(text)
  io.flush()
end
