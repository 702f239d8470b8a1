-- Random schedules of queues, semaphores and conditions against plain models of them: who is served, in which
-- order, and that nothing is lost, whenever waits are ended.
local ip = require "ip"
local random = require "spec.fuzz.random"
local support = require "spec.support"

local fiber = ip.fiber

local STEPS = 500
local SEEDS = { 1, 2, 3, 4, 5, 6, 7, 8, 20261128, 4711, 99991, 123456789 }

-- --- waits ---

-- A call in a coroutine of its own, either a fiber's or one made by others. `state` is the model's: "waiting", "served"
-- (it has its result and has not run yet), "over".
local Wait = {}
Wait.__index = Wait

local function start(r, world, fn, ...)
  local self = setmetatable({ state = "waiting", expected = nil }, Wait)
  local function body(...)
    self.co = coroutine.running()
    self.result = table.pack(pcall(fn, ...))
  end
  if r:one_in(2) then
    coroutine.resume(coroutine.create(body), ...)
  else
    self.fiber = fiber.spawn(body, ...)
    world:turn()
  end
  return self
end

function Wait:serve(...)
  self.state, self.expected = "served", table.pack(...)
end

-- Compares what the call returned with what the model says; after the coroutine has had its turn.
function Wait:check()
  if self.state == "served" then
    assert(self.result, "a served call has not returned")
    assert.same({ n = 1 + self.expected.n, true, table.unpack(self.expected, 1, self.expected.n) }, self.result)
    self.state = "over"
  elseif self.state == "interrupted" then
    assert.is_false(self.result[1])
    assert.equal(ip.error.INTERRUPTED, self.result[2])
    self.state = "over"
  elseif self.state == "refused" then
    assert.is_false(self.result[1])
    assert.equal(ip.error.EPIPE, self.result[2])
    self.state = "over"
  elseif self.state == "waiting" then
    assert.is_nil(self.result)
  end
end

local function remove(list, wait)
  for i, one in ipairs(list) do
    if one == wait then return table.remove(list, i) end
  end
end

-- --- the world of one schedule ---

local World = {}
World.__index = World

local function new_world(r)
  return setmetatable({ r = r, waits = {} }, World)
end

function World:add(wait)
  self.waits[#self.waits + 1] = wait
  return wait
end

-- Lets all that have a result run, and compares.
function World:turn()
  fiber.yield()
  fiber.yield()
  for i = #self.waits, 1, -1 do
    local wait = self.waits[i]
    wait:check()
    if wait.state == "over" then table.remove(self.waits, i) end
  end
end

function World:pick_wait()
  if #self.waits == 0 then return nil end
  return self.r:pick(self.waits)
end

-- Ends a wait by interruption or by coroutine.close; `model` takes back what a closed one was given.
function World:end_one(model)
  local wait = self:pick_wait()
  if wait == nil then return end
  if wait.fiber and self.r:one_in(2) then
    if wait.state == "waiting" then
      model:leave(wait)
      wait.state = "interrupted"
    end
    wait.fiber:interrupt()
    return
  end
  if wait.state == "interrupted" or wait.state == "refused" then return end
  coroutine.close(wait.co)
  remove(self.waits, wait)
  if wait.state == "waiting" then
    model:leave(wait)
  elseif wait.state == "served" then
    model:give_back(wait)
  end
end

-- Ends what is left.
function World:finish(model)
  for _ = 1, 10000 do
    if #self.waits == 0 then break end
    self:turn()
    self:end_one(model)
  end
  assert.equal(0, #self.waits)
  for _ = 1, 3 do fiber.yield() end
end

-- --- queues ---

local Queue = {}
Queue.__index = Queue

function Queue:settle()
  while true do
    if #self.values > 0 and #self.gets > 0 then
      table.remove(self.gets, 1):serve(table.remove(self.values, 1))
    elseif #self.values < self.capacity and #self.puts > 0 then
      local put = table.remove(self.puts, 1)
      self.values[#self.values + 1] = put.value
      put:serve()
    else
      return
    end
  end
end

function Queue:leave(wait)
  assert(remove(self.gets, wait) or remove(self.puts, wait))
end

function Queue:give_back(wait)
  if wait.expected.n == 1 and wait.expected[1] ~= nil then table.insert(self.values, 1, wait.expected[1]) end
  self:settle()
end

local queue_actions = {}

function queue_actions.put(world, model)
  model.last = model.last + 1
  local value = model.last
  local queue = model.queue
  if model.closed then return end
  local wait
  if #model.values < model.capacity then -- it does not wait
    model.values[#model.values + 1] = value
    model:settle()
    queue:put(value)
    return
  end
  wait = start(world.r, world, queue.put, queue, value)
  wait.value = value
  model.puts[#model.puts + 1] = world:add(wait)
end

function queue_actions.get(world, model)
  local queue = model.queue
  if #model.values > 0 then
    local expected = table.remove(model.values, 1)
    model:settle()
    assert.equal(expected, queue:get())
  elseif model.closed then
    assert.is_nil(queue:get())
  else
    model.gets[#model.gets + 1] = world:add(start(world.r, world, queue.get, queue))
  end
end

function queue_actions.try_put(_, model)
  model.last = model.last + 1
  local ok, err = model.queue:try_put(model.last)
  if model.closed or #model.values >= model.capacity then
    assert.is_nil(ok)
    assert.equal(model.closed and ip.error.EPIPE or ip.error.EAGAIN, err)
    return
  end
  assert.is_true(ok)
  model.values[#model.values + 1] = model.last
  model:settle()
end

function queue_actions.try_get(_, model)
  local value, err = model.queue:try_get()
  local expected = table.remove(model.values, 1)
  assert.equal(expected, value)
  if expected == nil then assert.equal(model.closed and ip.error.EPIPE or ip.error.EAGAIN, err) end
  model:settle()
end

function queue_actions.close(world, model)
  if not world.r:one_in(60) or model.closed then return end
  model.closed = true
  model.queue:close()
  for _, put in ipairs(model.puts) do put.state = "refused" end
  for _, get in ipairs(model.gets) do get:serve(nil) end
  model.puts, model.gets = {}, {}
end

local function new_queue(r)
  local capacity = r:pick { 1, 1, 2, 3, 8, math.huge }
  return setmetatable({
    queue = fiber.queue(capacity ~= math.huge and capacity or nil), capacity = capacity,
    values = {}, gets = {}, puts = {}, last = 0, closed = false,
  }, Queue), queue_actions
end

function Queue:check()
  assert.equal(#self.values, #self.queue)
  assert.equal(self.closed, self.queue.is_closed)
end

-- --- semaphores ---

local Semaphore = {}
Semaphore.__index = Semaphore

function Semaphore:settle()
  while self.permits > 0 and #self.line > 0 do
    self.permits = self.permits - 1
    table.remove(self.line, 1):serve()
  end
end

function Semaphore:leave(wait)
  assert(remove(self.line, wait))
end

function Semaphore:give_back()
  self.permits = self.permits + 1
  self:settle()
end

function Semaphore:check()
  assert.equal(self.permits, self.semaphore.permits)
end

local semaphore_actions = {}

function semaphore_actions.acquire(world, model)
  if model.permits > 0 then
    model.permits = model.permits - 1
    model.semaphore:acquire()
  else
    model.line[#model.line + 1] = world:add(start(world.r, world, model.semaphore.acquire, model.semaphore))
  end
end

function semaphore_actions.try_acquire(_, model)
  assert.equal(model.permits > 0, model.semaphore:try_acquire())
  if model.permits > 0 then model.permits = model.permits - 1 end
end

function semaphore_actions.release(_, model)
  model.semaphore:release()
  model:give_back()
end

local function new_semaphore(r)
  local permits = r:int(0, 3)
  return setmetatable({ semaphore = fiber.semaphore(permits), permits = permits, line = {} }, Semaphore),
    semaphore_actions
end

-- --- conditions ---

local Condition = {}
Condition.__index = Condition

function Condition:leave(wait)
  assert(remove(self.line, wait))
end

function Condition:notify_one()
  local wait = table.remove(self.line, 1)
  if wait == nil then return 0 end
  wait:serve()
  wait.passes_on = true
  return 1
end

function Condition:give_back(wait)
  if wait.passes_on then self:notify_one() end
end

function Condition.check() end

local condition_actions = {}

function condition_actions.wait(world, model)
  model.line[#model.line + 1] = world:add(start(world.r, world, model.condition.wait, model.condition))
end

function condition_actions.notify_one(_, model)
  assert.equal(model:notify_one(), model.condition:notify_one())
end

function condition_actions.notify_all(world, model)
  if not world.r:one_in(3) then return end
  assert.equal(#model.line, model.condition:notify_all())
  for _, wait in ipairs(model.line) do wait:serve() end
  model.line = {}
end

local function new_condition()
  return setmetatable({ condition = fiber.condition(), line = {} }, Condition), condition_actions
end

-- --- schedules ---

local function play(seed, new_model)
  local r = random.new(seed)
  local world = new_world(r)
  local model, actions = new_model(r)
  local names = {}
  for name in pairs(actions) do names[#names + 1] = name end
  table.sort(names)
  for _ = 1, STEPS do
    local kind = r:int(1, 10)
    if kind <= 6 then
      actions[r:pick(names)](world, model)
    elseif kind <= 8 then
      world:end_one(model)
    else
      world:turn()
    end
    model:check()
    if r:one_in(40) then collectgarbage() end
  end
  world:finish(model)
end

for name, new_model in pairs { queue = new_queue, semaphore = new_semaphore, condition = new_condition } do
  describe("a random schedule of a " .. name, function()
    for _, seed in ipairs(SEEDS) do
      it(("is that of a plain model, seed %d"):format(seed), support.with_loop(function()
        play(seed, new_model)
      end, 30))
    end
  end)
end
