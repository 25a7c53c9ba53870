// The first three calls of the README, and some more, with the types that openapi-typescript makes.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { argv: string[] };
const [url, key] = process.argv.slice(2) as [string, string];
const client = createClient<paths>({ baseUrl: url, headers: { "x-api-key": key } });

const charger = await client.PUT("/chargers/{id}", {
  params: { path: { id: "C1408" } },
  body: { chargePowers: [11, 22], latitude: 62.268302, longitude: 17.448415 },
});
const vehicle = await client.PUT("/vehicles/{id}", {
  params: { path: { id: "V0313" } },
  body: { chargeCapacity: 74.8, chargePowers: [11] },
});
const plugged: components["schemas"]["VehicleConnected"] = {
  type: "VEHICLE_CONNECTED",
  chargerId: "C1408",
  vehicleId: "V0313",
  stateOfCharge: 22.0,
  timestamp: "2023-05-11T22:06:40.738Z",
};
const event = await client.POST("/events", { body: plugged });
const eventId: string | undefined = event.data?.id;

const many = await client.POST("/events/bulk", { body: [plugged, { ...plugged, chargerId: "C2" }] });
const [again, refused] = many.data ?? [];
const events = await client.GET("/events", { params: { query: { type: "VEHICLE_CONNECTED" } } });
const patched = await client.PATCH("/chargers/{id}", {
  params: { path: { id: "C1408" } },
  body: { latitude: null, longitude: null },
});
const state = await client.GET("/chargers/{id}/state", { params: { path: { id: "C1408" } } });
const soc: number | undefined = state.data?.vehicles[0]?.stateOfCharge;
const unknown = await client.GET("/vehicles/{id}", { params: { path: { id: "nobody" } } });

// What is wrong is an error of the compiler: nothing that is known has become `any`.
// @ts-expect-error a type of event that there is not
const wrongType: components["schemas"]["EventPost"] = { ...plugged, type: "VEHICLE_MOVED" };
// @ts-expect-error a member of another type of event
const wrongMember: components["schemas"]["EventPost"] = { ...plugged, chargedEnergy: 1 };
// @ts-expect-error text in place of a number
const wrongNumber: components["schemas"]["ChargerPut"] = { chargePowers: ["11"] };
// @ts-expect-error a charger without any power
const noPower: components["schemas"]["ChargerPut"] = {};
// @ts-expect-error one end of a range
const oneEnd: components["schemas"]["ChargerPut"] = { chargePowerMin: 11 };
// @ts-expect-error nor is undefined a power
const undefinedPower: components["schemas"]["ChargerPut"] = { chargePowers: undefined };
// @ts-expect-error a vehicle without a capacity
const noCapacity: components["schemas"]["VehiclePut"] = { chargePowers: [11] };
// @ts-expect-error a vehicle without any power
const noVehiclePower: components["schemas"]["VehiclePut"] = { chargeCapacity: 74.8 };
// @ts-expect-error a member that no charger has
const noSuchMember: components["schemas"]["ChargerPut"] = { chargePowers: [11], colour: "red" };
// @ts-expect-error nothing at all, as a call
const nothing = () => client.PUT("/chargers/{id}", { params: { path: { id: "C1" } }, body: {} });
// @ts-expect-error nothing at all, in bulk
const nothingInBulk = () => client.POST("/vehicles/bulk", { body: [{}] });
// @ts-expect-error a number in place of an id
const wrongId: number | undefined = again?.id;
// @ts-expect-error a number in place of the message
const wrongMessage: number | undefined = unknown.error?.message;
const range: components["schemas"]["ChargerPut"] = { chargePowers: [], chargePowerMin: 11, chargePowerMax: 22 };
const older: components["schemas"]["VehiclePut"] = { chargeCapacity: 60, minChargePower: 11, maxChargePower: 22 };
// What is listed is a union by type, too.
const first = events.data?.[0];
const energy: number | undefined =
  first?.type === "VEHICLE_CHARGE_STOPPED" ? first.chargedEnergy : undefined;
// @ts-expect-error a member of another type of event
const noEnergy = first?.type === "VEHICLE_CONNECTED" ? first.chargedEnergy : undefined;
// @ts-expect-error a member that no event has
const noMember = events.data?.[0]?.colour;

console.log(JSON.stringify({
  charger: charger.data?.id,
  vehicle: vehicle.data?.id,
  event: eventId,
  again: again?.id,
  refused: refused?.status,
  listed: events.data?.map((one) => one.id),
  patched: patched.response.status,
  stateOfCharge: soc,
  unknown: unknown.error?.message,
}));
