-- POST /events; no two events of a run have the same millisecond.
-- Arguments: the key, the run's first second since 1970, how many events at
-- most (0: as many as there is time for).
require "common"

local TYPES = {
  [0] = "VEHICLE_CONNECTED", "VEHICLE_CHARGE_STARTED", "VEHICLE_CHARGE_UPDATED",
  "VEHICLE_CHARGE_STOPPED", "VEHICLE_DISCONNECTED"
}
local THINGS = 1000 -- chargers, and vehicles
local STEP = 617 -- no common divisor with THINGS
local BODY = '{"type":"%s","chargerId":"C%04d","vehicleId":"V%04d",' ..
  '"stateOfCharge":%.1f,"timestamp":"%s.%03dZ"}'

local floor = math.floor
local first_second, n = 0, 0
local second, second_text = -1, ""

function init(args)
  wrk.method = "POST"
  wrk.headers["x-api-key"] = args[1]
  first_second = tonumber(args[2])
  local limit = tonumber(args[3])
  if limit > 0 then
    local answered = 0
    function response()
      answered = answered + 1
      if answered == limit then
        wrk.thread:stop()
        io.write("ENOUGH\n") -- wrk itself goes on until its time is over: see load.py
        io.stdout:flush()
      end
    end
  end
end

-- All vehicles in turn, in no order that an index would know, each of them at a
-- charger; then all again with the next type. After the fifth they change chargers.
function request()
  local ms = n % 1000
  local now = first_second + floor(n / 1000)
  if now ~= second then
    second, second_text = now, os.date("!%Y-%m-%dT%H:%M:%S", now)
  end
  local turn = floor(n / THINGS)
  local vehicle = n * STEP % THINGS
  local charger = (7 * vehicle + floor(turn / 5)) % THINGS
  local body = BODY:format(
    TYPES[turn % 5], charger, vehicle, n % 1001 / 10, second_text, ms)
  n = n + 1
  return wrk.format(nil, nil, nil, body)
end
