--- Random numbers in streams of their own: what a finalizer or a hook draws does not change what the next
--- step draws.

local random = {}
random.__index = random

-- splitmix64: https://prng.di.unimi.it/splitmix64.c
local function mix(x)
  x = (x ~ (x >> 30)) * 0xbf58476d1ce4e5b9
  x = (x ~ (x >> 27)) * 0x94d049bb133111eb
  return x ~ (x >> 31)
end

--- Returns the stream of these integers; different integers have unrelated streams.
function random.new(...)
  local state = 0
  for i = 1, select("#", ...) do state = mix(state + 0x9e3779b97f4a7c15 * (select(i, ...) + i)) end
  return setmetatable({ state = state }, random)
end

function random:next()
  self.state = self.state + 0x9e3779b97f4a7c15
  return mix(self.state)
end

--- Returns an integer within low..high.
function random:int(low, high)
  return low + (self:next() >> 1) % (high - low + 1)
end

--- True with a chance of one in `n`.
function random:one_in(n)
  return (self:next() >> 1) % n == 0
end

function random:pick(list)
  return list[self:int(1, #list)]
end

--- Returns a number of seconds that is short, but often zero, negative or tiny.
function random:seconds()
  local kind = self:int(1, 12)
  if kind == 1 then return 0 end
  if kind == 2 then return -1 end
  if kind == 3 then return 1e-9 end
  return self:int(1, 8000) / 1e6
end

return random
